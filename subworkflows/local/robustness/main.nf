//
// The benchmark's methods on slides with part of their counts removed
//

include { RANK        } from '../../../modules/local/rank/main'
include { RUN_METHODS } from '../run_methods/main'

workflow ROBUSTNESS {
    take:
    ch_pairs // channel: [ meta, slide, reference ]
    ch_folds // channel: [ meta, folds ]
    ch_plans // channel: [ meta, plan ]
    ch_parts // channel: [ meta, [ files ] ], of the benchmark on the slide as it is

    main:
    RUN_METHODS(ch_pairs, ch_folds, ch_plans, 'robustness')
    RANK(
        ch_pairs
            .map { meta, slide, _reference -> [meta, slide] }
            .join(ch_folds)
            .join(ch_plans)
            .join(RUN_METHODS.out.parts.join(ch_parts).map { meta, thinned, whole -> [meta, thinned + whole] })
            .map { meta, slide, folds, plan, parts -> [meta, slide, folds, plan, parts, [], []] },
        'robustness',
    )
    tables = RANK.out.tables

    emit:
    tables // channel: [ meta, [ robustness.csv, robustness_metrics.csv ] ]
}
