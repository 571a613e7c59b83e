//
// Other methods on the slide's hidden genes: benchmark, robustness, ablation, and their figures
//

include { ABLATION         } from '../ablation/main'
include { BENCHMARK        } from '../benchmark/main'
include { BENCHMARK_COHORT } from '../../../modules/local/benchmark_cohort/main'
include { BENCHMARK_PLOT   } from '../../../modules/local/benchmark_plot/main'
include { FOLDS            } from '../../../modules/local/folds/main'
include { ROBUSTNESS       } from '../robustness/main'
include { RUN_METHODS      } from '../run_methods/main'

workflow COMPARE_METHODS {
    take:
    ch_pairs // channel: [ meta, slide, reference ]
    ch_predictions // channel: [ meta, [ names of methods ], [ files ] ], made elsewhere
    folds // path: folds.json, or []
    wanted // map: benchmark, robustness, ablation: which are run

    main:
    FOLDS(ch_pairs.map { meta, slide, reference -> [meta, slide, reference, folds] })
    RUN_METHODS(ch_pairs, FOLDS.out.folds, FOLDS.out.plan)
    ch_slides = ch_pairs.map { meta, slide, _reference -> [meta, slide] }
    ch_tables = channel.empty()
    if (wanted.benchmark || wanted.robustness) {
        BENCHMARK(ch_slides, FOLDS.out.folds, FOLDS.out.plan, RUN_METHODS.out.benchmark, ch_predictions)
        ch_tables = BENCHMARK.out.tables.join(BENCHMARK.out.imputed).join(BENCHMARK.out.benchmark).map { row -> [row[0], row[1..-1].flatten()] }
    }
    if (wanted.robustness) {
        ROBUSTNESS(ch_slides, FOLDS.out.folds, FOLDS.out.plan, RUN_METHODS.out.robustness, RUN_METHODS.out.benchmark)
        ch_tables = both(ch_tables, ROBUSTNESS.out.tables)
    }
    if (wanted.ablation) {
        ABLATION(ch_slides, FOLDS.out.folds, FOLDS.out.plan, RUN_METHODS.out.ablation)
        ch_tables = both(ch_tables, ABLATION.out.tables)
    }
    BENCHMARK_PLOT(ch_slides.join(ch_tables))
    BENCHMARK_COHORT(BENCHMARK_PLOT.out.ranking.map { _meta, csv -> csv }.toSortedList { a, b -> a.name <=> b.name }.filter { files -> files })
    results = BENCHMARK_PLOT.out.ranking
        .join(BENCHMARK_PLOT.out.benchmark)
        .join(BENCHMARK_PLOT.out.plots)
        .map { meta, ranking, json, plots -> [meta, [ranking, json, plots]] }

    emit:
    results // channel: [ meta, [ ranking.csv, benchmark.json, plots ] ], of slides that were benchmarked
}

// [ meta, files of both ], also where one of the two has none
def both(one, other) {
    return one.join(other, remainder: true).map { row -> [row[0], row[1..-1].flatten().findAll { path -> path }] }
}
