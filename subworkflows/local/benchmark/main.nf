//
// All methods impute the same hidden genes of a slide, and are ranked
//

include { RANK        } from '../../../modules/local/rank/main'
include { RUN_METHODS } from '../run_methods/main'

workflow BENCHMARK {
    take:
    ch_pairs // channel: [ meta, slide, reference ]
    ch_folds // channel: [ meta, folds ]
    ch_plans // channel: [ meta, plan ]
    ch_predictions // channel: [ meta, [ names of methods ], [ files ] ], made elsewhere

    main:
    RUN_METHODS(ch_pairs, ch_folds, ch_plans, 'benchmark')
    parts = RUN_METHODS.out.parts
    RANK(
        ch_pairs
            .map { meta, slide, _reference -> [meta, slide] }
            .join(ch_folds)
            .join(ch_plans)
            .join(parts)
            .join(ch_predictions),
        'benchmark',
    )
    tables = RANK.out.tables
    imputed = RANK.out.imputed
    benchmark = RANK.out.benchmark

    emit:
    parts // channel: [ meta, [ files ] ]
    tables // channel: [ meta, [ metrics.csv, ranking.csv ] ]
    imputed // channel: [ meta, [ h5ad of each method ] ]
    benchmark // channel: [ meta, benchmark.json ]
}
