//
// Every process once, alone, on files that need hold nothing: for -stub-run
//

include { BENCHMARK_COHORT } from '../../modules/local/benchmark_cohort/main'
include { BENCHMARK_PLOT   } from '../../modules/local/benchmark_plot/main'
include { CHECK_DEVICE     } from '../../modules/local/check_device/main'
include { CHECK_INPUTS     } from '../../modules/local/check_inputs/main'
include { EVALUATE         } from '../../modules/local/evaluate/main'
include { FOLDS            } from '../../modules/local/folds/main'
include { IMPUTE           } from '../../modules/local/impute/main'
include { MULTIQC          } from '../../modules/nf-core/multiqc/main'
include { PAIR             } from '../../modules/local/pair/main'
include { PLOT             } from '../../modules/local/plot/main'
include { PREPARE_REFERENCE } from '../../modules/local/prepare_reference/main'
include { QC               } from '../../modules/local/qc/main'
include { RANK             } from '../../modules/local/rank/main'
include { READ             } from '../../modules/local/read/main'
include { REPORT           } from '../../modules/local/report/main'
include { RUN_METHOD       } from '../../modules/local/run_method/main'
include { SPLIT            } from '../../modules/local/split/main'
include { SUMMARIZE        } from '../../modules/local/summarize/main'
include { TRAIN            } from '../../modules/local/train/main'

workflow {
    def root = file("${projectDir}/../..").normalize()
    def meta = [id: 's.1', role: 'slide', reference: 'r', platform: 'auto', species: 'Mus musculus']
    CHECK_INPUTS(any_file('samplesheet.csv'), '{}', file("${root}/assets/schema_input.json"), file("${root}/nextflow_schema.json"), any_file('predictions.csv'))
    def needs = [train_gib: 1, train_minutes: 1, impute_gib: 1, impute_minutes: 1]
    CHECK_DEVICE([id: 'device'])
    READ([meta, any_file('a slide.h5ad')])
    QC([meta, any_file('s.1.h5ad')])
    PREPARE_REFERENCE([[id: 'r', role: 'reference', batch: 'donor'], any_file('reference.h5ad')], params.inputs)
    PAIR([meta, any_file('s.1.qc.h5ad'), any_file('r.qc.h5ad')])
    SPLIT([meta, any_file('s.1.slide.h5ad'), any_file('s.1.reference.h5ad'), []])
    TRAIN([meta, any_file('s.1.slide.h5ad'), any_file('s.1.reference.h5ad'), any_file('s.1.split.json'), any_file('s.1.resources.json'), needs, []], [])
    IMPUTE([meta, any_file('s.1.slide.h5ad'), any_file('s.1.reference.h5ad'), any_file('s.1.split.json'), any_file('s.1.model'), any_file('s.1.training.json'), needs])
    EVALUATE([meta, any_file('s.1.imputed.h5ad'), any_file('s.1.slide.h5ad'), any_file('s.1.reference.h5ad'), any_file('s.1.split.json')])
    FOLDS([meta, any_file('s.1.slide.h5ad'), any_file('s.1.reference.h5ad'), []])
    def job = [name: 's.1.ridge.fold0', what: 'benchmark', method: 'ridge', kind: 'floor', fold: 0, rate: 0, seed: 0, image: 'core', minutes: 20, memory_gib: 1]
    RUN_METHOD([meta, job, any_file('s.1.slide.h5ad'), any_file('s.1.reference.h5ad'), any_file('folds.json')])
    RANK([meta, any_file('s.1.slide.h5ad'), any_file('folds.json'), any_file('plan.json'), [any_file('s.1.ridge.fold0.h5ad'), any_file('s.1.ridge.fold0.run.json')], ['a', 'b'], [any_file('mine.csv'), any_file('own/mine.csv')]], 'benchmark')
    PLOT([meta, any_file('s.1.imputed.h5ad'), any_file('s.1.slide.h5ad'), any_file('s.1.metrics.csv'), any_file('s.1.evaluation.json')])
    REPORT([meta, any_file('s.1.imputed.h5ad'), any_file('s.1.slide.h5ad'), any_file('s.1.reference.h5ad'), any_file('s.1.metrics.csv'), any_file('s.1.qc.json'), any_file('r.qc.json'), any_file('s.1.pairing.json'), any_file('s.1.split.json'), any_file('s.1.training.json'), any_file('s.1.evaluation.json'), any_file('s.1.curves.csv'), any_file('plots'), []])
    BENCHMARK_PLOT([meta, any_file('s.1.slide.h5ad'), [any_file('ranking.csv'), any_file('metrics.csv'), any_file('ridge.h5ad')]])
    BENCHMARK_COHORT([any_file('s.1.ranking.csv')])
    SUMMARIZE(any_file('inputs.json'), any_file('params.json'), any_file('versions.yml'), [any_file('s.1.qc.json'), any_file('r.qc.json')])
    MULTIQC([any_file('one_mqc.json'), any_file('two_mqc.json')], any_file('multiqc_config.yml'), any_file('own/multiqc_config.yml'), [])

    show('CHECK_INPUTS.inputs', CHECK_INPUTS.out.inputs)
    show('CHECK_INPUTS.params', CHECK_INPUTS.out.params)
    show('CHECK_DEVICE.facts', CHECK_DEVICE.out.facts)
    show('READ.h5ad', READ.out.h5ad)
    show('QC.h5ad', QC.out.h5ad)
    show('QC.facts', QC.out.facts)
    show('PREPARE_REFERENCE.h5ad', PREPARE_REFERENCE.out.h5ad)
    show('PREPARE_REFERENCE.facts', PREPARE_REFERENCE.out.facts)
    show('PAIR.pair', PAIR.out.pair)
    show('PAIR.facts', PAIR.out.facts)
    show('SPLIT.split', SPLIT.out.split)
    show('SPLIT.resources', SPLIT.out.resources)
    show('TRAIN.model', TRAIN.out.model)
    show('TRAIN.curves', TRAIN.out.curves)
    show('TRAIN.training', TRAIN.out.training)
    show('IMPUTE.imputed', IMPUTE.out.imputed)
    show('EVALUATE.metrics', EVALUATE.out.metrics)
    show('EVALUATE.evaluation', EVALUATE.out.evaluation)
    show('FOLDS.folds', FOLDS.out.folds)
    show('FOLDS.plan', FOLDS.out.plan)
    show('RUN_METHOD.part', RUN_METHOD.out.part)
    show('RANK.tables', RANK.out.tables)
    show('RANK.imputed', RANK.out.imputed)
    show('RANK.benchmark', RANK.out.benchmark)
    show('PLOT.plots', PLOT.out.plots)
    show('PLOT.thumbnails', PLOT.out.thumbnails)
    show('REPORT.html', REPORT.out.html)
    show('BENCHMARK_PLOT.plots', BENCHMARK_PLOT.out.plots)
    show('BENCHMARK_PLOT.thumbnails', BENCHMARK_PLOT.out.thumbnails)
    show('BENCHMARK_PLOT.ranking', BENCHMARK_PLOT.out.ranking)
    show('BENCHMARK_PLOT.benchmark', BENCHMARK_PLOT.out.benchmark)
    show('BENCHMARK_COHORT.plots', BENCHMARK_COHORT.out.plots)
    show('SUMMARIZE.multiqc', SUMMARIZE.out.multiqc)
    show('SUMMARIZE.slides', SUMMARIZE.out.slides)
    show('SUMMARIZE.table', SUMMARIZE.out.table)
    show('MULTIQC.report', MULTIQC.out.report)
    show('MULTIQC.data', MULTIQC.out.data)
    channel.topic('facts').subscribe { item -> println("TOPIC facts ${names(item)}") }
    channel.topic('versions').subscribe { item -> println("TOPIC versions ${item.join(' ')}") }
}

def any_file(name) {
    return file("${params.inputs}/${name}")
}

def show(output, ch) {
    ch.subscribe { item -> println("OUT ${output} ${names(item)}") }
}

def names(item) {
    return (item instanceof List ? item : [item]).findAll { part -> !(part instanceof Map) }.flatten().collect { path -> path.name }.join(',')
}
