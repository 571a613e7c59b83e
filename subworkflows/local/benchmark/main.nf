//
// All methods impute the same hidden genes of a slide, and are ranked
//

include { RANK } from '../../../modules/local/rank/main'

workflow BENCHMARK {
    take:
    ch_slides // channel: [ meta, slide ]
    ch_folds // channel: [ meta, folds ]
    ch_plans // channel: [ meta, plan ]
    ch_parts // channel: [ meta, [ files ] ], of the runs
    ch_predictions // channel: [ meta, [ names of methods ], [ files ] ], made elsewhere

    main:
    RANK(
        ch_slides
            .join(ch_folds)
            .join(ch_plans)
            .join(ch_parts)
            .join(ch_predictions),
        'benchmark',
    )
    tables = RANK.out.tables
    imputed = RANK.out.imputed
    benchmark = RANK.out.benchmark

    emit:
    tables // channel: [ meta, [ metrics.csv, ranking.csv ] ]
    imputed // channel: [ meta, [ h5ad of each method ] ]
    benchmark // channel: [ meta, benchmark.json ]
}
