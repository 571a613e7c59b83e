//
// The benchmark's methods on slides with part of their counts removed
//

include { RANK } from '../../../modules/local/rank/main'

workflow ROBUSTNESS {
    take:
    ch_slides // channel: [ meta, slide ]
    ch_folds // channel: [ meta, folds ]
    ch_plans // channel: [ meta, plan ]
    ch_thinned // channel: [ meta, [ files ] ], of the runs on thinned slides
    ch_whole // channel: [ meta, [ files ] ], of the runs on the slide as it is

    main:
    RANK(
        ch_slides
            .join(ch_folds)
            .join(ch_plans)
            .join(ch_thinned.join(ch_whole).map { meta, thinned, whole -> [meta, thinned + whole] })
            .map { meta, slide, folds, plan, parts -> [meta, slide, folds, plan, parts, [], []] },
        'robustness',
    )
    tables = RANK.out.tables

    emit:
    tables // channel: [ meta, [ robustness.csv, robustness_metrics.csv ] ]
}
