//
// Every process once, alone, on files that need hold nothing: for -stub-run
//

include { CHECK_INPUTS } from '../../modules/local/check_inputs/main'
include { EVALUATE     } from '../../modules/local/evaluate/main'
include { IMPUTE       } from '../../modules/local/impute/main'
include { MULTIQC      } from '../../modules/nf-core/multiqc/main'
include { PAIR         } from '../../modules/local/pair/main'
include { PLOT         } from '../../modules/local/plot/main'
include { QC           } from '../../modules/local/qc/main'
include { READ         } from '../../modules/local/read/main'
include { REPORT       } from '../../modules/local/report/main'
include { SPLIT        } from '../../modules/local/split/main'
include { SUMMARIZE    } from '../../modules/local/summarize/main'
include { TRAIN        } from '../../modules/local/train/main'

workflow {
    def root = file("${projectDir}/../..").normalize()
    def meta = [id: 's.1', role: 'slide', reference: 'r', platform: 'auto', species: 'Mus musculus']
    // the same file under many names: a process must not mix up its inputs
    def any = { name -> file("${params.inputs}/${name}") }
    CHECK_INPUTS(any('samplesheet.csv'), '{}', file("${root}/assets/schema_input.json"), file("${root}/nextflow_schema.json"))
    READ([meta, any('a slide.h5ad')])
    QC([meta, any('s.1.h5ad')])
    PAIR([meta, any('s.1.qc.h5ad'), any('r.qc.h5ad')])
    SPLIT([meta, any('s.1.slide.h5ad'), any('s.1.reference.h5ad'), []])
    TRAIN([meta, any('s.1.slide.h5ad'), any('s.1.reference.h5ad'), any('s.1.split.json')])
    IMPUTE([meta, any('s.1.slide.h5ad'), any('s.1.reference.h5ad'), any('s.1.split.json'), any('s.1.model'), any('s.1.training.json')])
    EVALUATE([meta, any('s.1.imputed.h5ad'), any('s.1.slide.h5ad'), any('s.1.reference.h5ad'), any('s.1.split.json')])
    PLOT([meta, any('s.1.imputed.h5ad'), any('s.1.slide.h5ad'), any('s.1.metrics.csv'), any('s.1.evaluation.json')])
    REPORT([meta, any('s.1.imputed.h5ad'), any('s.1.metrics.csv'), any('s.1.qc.json'), any('r.qc.json'), any('s.1.pairing.json'), any('s.1.split.json'), any('s.1.training.json'), any('s.1.evaluation.json'), any('s.1.curves.csv'), any('plots')])
    SUMMARIZE(any('inputs.json'), any('params.json'), any('versions.yml'), [any('s.1.qc.json'), any('r.qc.json')])
    MULTIQC([any('one_mqc.json'), any('two_mqc.json')], any('multiqc_config.yml'), any('own/multiqc_config.yml'), [])

    show('CHECK_INPUTS.inputs', CHECK_INPUTS.out.inputs)
    show('CHECK_INPUTS.params', CHECK_INPUTS.out.params)
    show('READ.h5ad', READ.out.h5ad)
    show('QC.h5ad', QC.out.h5ad)
    show('QC.facts', QC.out.facts)
    show('PAIR.pair', PAIR.out.pair)
    show('PAIR.facts', PAIR.out.facts)
    show('SPLIT.split', SPLIT.out.split)
    show('TRAIN.model', TRAIN.out.model)
    show('TRAIN.curves', TRAIN.out.curves)
    show('TRAIN.training', TRAIN.out.training)
    show('IMPUTE.imputed', IMPUTE.out.imputed)
    show('EVALUATE.metrics', EVALUATE.out.metrics)
    show('EVALUATE.evaluation', EVALUATE.out.evaluation)
    show('PLOT.plots', PLOT.out.plots)
    show('PLOT.thumbnails', PLOT.out.thumbnails)
    show('REPORT.html', REPORT.out.html)
    show('SUMMARIZE.multiqc', SUMMARIZE.out.multiqc)
    show('SUMMARIZE.slides', SUMMARIZE.out.slides)
    show('SUMMARIZE.table', SUMMARIZE.out.table)
    show('MULTIQC.report', MULTIQC.out.report)
    show('MULTIQC.data', MULTIQC.out.data)
    channel.topic('facts').subscribe { item -> println("TOPIC facts ${names(item)}") }
    channel.topic('versions').subscribe { item -> println("TOPIC versions ${item.join(' ')}") }
}

def show(output, ch) {
    ch.subscribe { item -> println("OUT ${output} ${names(item)}") }
}

def names(item) {
    return (item instanceof List ? item : [item]).findAll { part -> !(part instanceof Map) }.flatten().collect { path -> path.name }.join(',')
}
