//
// Every process of a slide on small real data, one after the other; READ also on a file that is cut short, TRAIN also for needs that no
// machine meets
//

include { BENCHMARK              } from '../../subworkflows/local/benchmark/main'
include { BENCHMARK_PLOT         } from '../../modules/local/benchmark_plot/main'
include { CHECK_DEVICE           } from '../../modules/local/check_device/main'
include { EVALUATE               } from '../../modules/local/evaluate/main'
include { FOLDS                  } from '../../modules/local/folds/main'
include { IMPUTE                 } from '../../modules/local/impute/main'
include { MULTIQC                } from '../../modules/nf-core/multiqc/main'
include { PAIR                   } from '../../modules/local/pair/main'
include { PLOT                   } from '../../modules/local/plot/main'
include { PREPARE_REFERENCE      } from '../../modules/local/prepare_reference/main'
include { QC as QC_REFERENCE     } from '../../modules/local/qc/main'
include { QC as QC_SLIDE         } from '../../modules/local/qc/main'
include { READ as READ_FOLDER    } from '../../modules/local/read/main'
include { READ as READ_REFERENCE } from '../../modules/local/read/main'
include { READ as READ_SLIDE     } from '../../modules/local/read/main'
include { REPORT                 } from '../../modules/local/report/main'
include { RUN_METHODS            } from '../../subworkflows/local/run_methods/main'
include { SPATIALDATA            } from '../../modules/local/spatialdata/main'
include { SPLIT                  } from '../../modules/local/split/main'
include { SUMMARIZE              } from '../../modules/local/summarize/main'
include { TRAIN                  } from '../../modules/local/train/main'

workflow {
    def data = file(params.inputs)
    def slide = [id: 's.1', role: 'slide', reference: 'r', platform: 'auto', species: 'Mus musculus']
    def broken = slide + [id: 'broken']
    def reference = [id: 'r', role: 'reference', batch: "donor's \$(name)"]

    READ_SLIDE(channel.of([slide, data.resolve('a slide.h5ad')], [broken, data.resolve('cut short.h5ad')]))
    READ_FOLDER([slide + [id: 'folder', platform: 'visium_hd', bin_size: '16'], data.resolve('a folder')])
    READ_REFERENCE([reference, data.resolve('reference.h5ad')])
    QC_SLIDE(READ_SLIDE.out.h5ad)
    QC_REFERENCE(READ_REFERENCE.out.h5ad)
    PREPARE_REFERENCE([reference + [id: 'kept'], data.resolve('reference.h5ad')], data.resolve('reference cache').toString())
    PAIR(QC_SLIDE.out.h5ad.combine(QC_REFERENCE.out.h5ad.map { _meta, path -> path }))
    SPLIT(PAIR.out.pair.map { meta, a, b -> [meta, a, b, data.resolve('wanted genes.txt')] })
    CHECK_DEVICE([id: 'device'])
    def needs = [train_gib: 1, train_minutes: 1, impute_gib: 1, impute_minutes: 1]
    ch_slide = PAIR.out.pair.join(SPLIT.out.split)
    ch_huge = ch_slide.map { meta, a, b, split -> [meta + [id: 'huge'], a, b, split, data.resolve('huge.resources.json'), needs + [train_minutes: 1000], []] }
    TRAIN(ch_slide.join(SPLIT.out.resources).map { row -> row + [needs, []] }.mix(ch_huge), [])
    IMPUTE(ch_slide.join(TRAIN.out.model).join(TRAIN.out.training).map { row -> row + [needs] })
    SPATIALDATA(IMPUTE.out.imputed)
    EVALUATE(IMPUTE.out.imputed.join(PAIR.out.pair).join(SPLIT.out.split))
    FOLDS(PAIR.out.pair.map { meta, a, b -> [meta, a, b, []] })
    RUN_METHODS(PAIR.out.pair, FOLDS.out.folds, FOLDS.out.plan)
    BENCHMARK(
        PAIR.out.pair.map { meta, a, _b -> [meta, a] },
        FOLDS.out.folds,
        FOLDS.out.plan,
        RUN_METHODS.out.benchmark,
        PAIR.out.pair.map { meta, _a, _b -> [meta, ['mine'], [data.resolve('mine.csv')]] },
    )
    PLOT(IMPUTE.out.imputed.join(PAIR.out.pair.map { meta, a, _b -> [meta, a] }).join(EVALUATE.out.metrics).join(EVALUATE.out.evaluation))
    BENCHMARK_PLOT(
        PAIR.out.pair
            .map { meta, a, _b -> [meta, a] }
            .join(BENCHMARK.out.tables.join(BENCHMARK.out.imputed).join(BENCHMARK.out.benchmark).map { row -> [row[0], row[1..-1].flatten()] })
    )
    REPORT(
        IMPUTE.out.imputed
            .join(PAIR.out.pair)
            .join(EVALUATE.out.metrics)
            .join(QC_SLIDE.out.facts)
            .combine(QC_REFERENCE.out.facts.map { _meta, path -> path })
            .join(PAIR.out.facts)
            .join(SPLIT.out.split)
            .join(TRAIN.out.training)
            .join(EVALUATE.out.evaluation)
            .join(TRAIN.out.curves)
            .join(PLOT.out.plots)
            .join(BENCHMARK_PLOT.out.ranking.join(BENCHMARK_PLOT.out.benchmark).join(BENCHMARK_PLOT.out.plots).map { meta, a, b, c -> [meta, [a, b, c]] })
    )
    SUMMARIZE(
        data.resolve('inputs.json'),
        data.resolve('params.json'),
        data.resolve('versions.yml'),
        channel.topic('facts').flatMap { _meta, files -> files instanceof List ? files : [files] }.toSortedList { a, b -> a.name <=> b.name },
    )
    MULTIQC(SUMMARIZE.out.multiqc, file("${projectDir}/../../assets/multiqc_config.yml"), [], files("${projectDir}/../../assets/logo/*.png"))
}
