//
// A slide's whole way: read, QC, pair with its reference, hide genes, train, impute, evaluate, plot, report; and the benchmark of methods.
// Channels are joined by their meta map, never by order. A slide that fails leaves its channel; the others go on.
//

include { CHECK_DEVICE    } from '../modules/local/check_device/main'
include { COMPARE_METHODS } from '../subworkflows/local/compare_methods/main'
include { IMPUTE_SLIDES   } from '../subworkflows/local/impute/main'
include { PAIR            } from '../modules/local/pair/main'
include { PLOT            } from '../modules/local/plot/main'
include { PREPARE_INPUTS  } from '../subworkflows/local/prepare_inputs/main'
include { QUALITY_CONTROL } from '../subworkflows/local/quality_control/main'
include { REPORT          } from '../modules/local/report/main'
include { REPORT_COHORT   } from '../subworkflows/local/report/main'
include { SPLIT           } from '../modules/local/split/main'

workflow SPADIT {
    take:
    sheet // path: the samplesheet
    all_params // map: all parameters

    main:
    PREPARE_INPUTS(sheet, all_params)
    ch_slides = PREPARE_INPUTS.out.slides.map { meta, st, _genes -> [meta, st] }
    ch_genes = PREPARE_INPUTS.out.slides.map { meta, _st, genes -> [meta, genes] }

    QUALITY_CONTROL(ch_slides, PREPARE_INPUTS.out.references, all_params.reference_cache)

    PAIR(with_reference(QUALITY_CONTROL.out.slides, QUALITY_CONTROL.out.references))
    SPLIT(PAIR.out.pair.join(ch_genes))
    ch_slide = PAIR.out.pair.map { meta, slide, _reference -> [meta, slide] }

    // Before anything is trained: only waited for, so that another machine's facts don't make a slide's tasks others
    CHECK_DEVICE(PREPARE_INPUTS.out.inputs.map { _json -> [id: 'device'] })
    ch_device = CHECK_DEVICE.out.facts.map { _meta, json -> checked_device(json) }
    IMPUTE_SLIDES(
        PAIR.out.pair.combine(ch_device).map { row -> row[0..-2] },
        SPLIT.out.split,
        SPLIT.out.resources,
        all_params.model,
        all_params.start_model ? file(all_params.start_model) : [],
    )

    ch_compared = channel.empty()
    if (all_params.benchmark || all_params.robustness || all_params.ablation) {
        def folds = all_params.folds.toString().isInteger() ? [] : file(all_params.folds)
        COMPARE_METHODS(PAIR.out.pair, PREPARE_INPUTS.out.predictions, folds, all_params.subMap('benchmark', 'robustness', 'ablation'))
        ch_compared = COMPARE_METHODS.out.results
    }

    ch_imputed = IMPUTE_SLIDES.out.imputed
    PLOT(ch_imputed.join(ch_slide).join(IMPUTE_SLIDES.out.metrics).join(IMPUTE_SLIDES.out.evaluation))
    REPORT(
        ch_imputed
            .join(PAIR.out.pair)
            .join(IMPUTE_SLIDES.out.metrics)
            .join(with_reference(QUALITY_CONTROL.out.slide_facts, QUALITY_CONTROL.out.reference_facts))
            .join(PAIR.out.facts)
            .join(SPLIT.out.split)
            .join(IMPUTE_SLIDES.out.training)
            .join(IMPUTE_SLIDES.out.evaluation)
            .join(IMPUTE_SLIDES.out.curves)
            .join(PLOT.out.plots)
            .join(ch_compared, remainder: true)
            .filter { row -> row[1] }
            .map { row -> row[0..-2] + [row[-1] ?: []] }
    )
    REPORT_COHORT(PREPARE_INPUTS.out.inputs, PREPARE_INPUTS.out.params_json)
    slides = REPORT_COHORT.out.slides
    report = REPORT_COHORT.out.report

    emit:
    slides // channel: list of maps, one per slide of the sheet: sample, status, reason ...
    report // channel: multiqc_report.html
}

// [ slide's meta, file of the slide, file of its reference ]: a reference serves every slide that names it
def with_reference(slides, references) {
    return slides
        .map { meta, path -> [meta.reference, meta, path] }
        .combine(references.map { meta, path -> [meta.id, path] }, by: 0)
        .map { _reference, meta, slide, reference -> [meta, slide, reference] }
}

// Stops the run where a GPU was asked for and can't be used
def checked_device(json) {
    def found = new groovy.json.JsonSlurper().parseText(json.text)
    if (found.problem) {
        error("${found.problem} ${found.remedy}")
    }
    return found.device ?: ''
}
