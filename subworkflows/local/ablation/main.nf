//
// What each part of SpaDiT's network is worth: variants of it on the benchmark's folds, with several seeds
//

include { RANK        } from '../../../modules/local/rank/main'
include { RUN_METHODS } from '../run_methods/main'

workflow ABLATION {
    take:
    ch_pairs // channel: [ meta, slide, reference ]
    ch_folds // channel: [ meta, folds ]
    ch_plans // channel: [ meta, plan ]

    main:
    RUN_METHODS(ch_pairs, ch_folds, ch_plans, 'ablation')
    RANK(
        ch_pairs
            .map { meta, slide, _reference -> [meta, slide] }
            .join(ch_folds)
            .join(ch_plans)
            .join(RUN_METHODS.out.parts)
            .map { meta, slide, folds, plan, parts -> [meta, slide, folds, plan, parts, [], []] },
        'ablation',
    )
    tables = RANK.out.tables

    emit:
    tables // channel: [ meta, [ ablation.csv, ablation_metrics.csv ] ]
}
