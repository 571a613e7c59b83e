//
// What each part of SpaDiT's network is worth: variants of it on the benchmark's folds, with several seeds
//

include { RANK } from '../../../modules/local/rank/main'

workflow ABLATION {
    take:
    ch_slides // channel: [ meta, slide ]
    ch_folds // channel: [ meta, folds ]
    ch_plans // channel: [ meta, plan ]
    ch_parts // channel: [ meta, [ files ] ], of the runs

    main:
    RANK(
        ch_slides
            .join(ch_folds)
            .join(ch_plans)
            .join(ch_parts)
            .map { meta, slide, folds, plan, parts -> [meta, slide, folds, plan, parts, [], []] },
        'ablation',
    )
    tables = RANK.out.tables

    emit:
    tables // channel: [ meta, [ ablation.csv, ablation_metrics.csv ] ]
}
