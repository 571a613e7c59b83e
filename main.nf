#!/usr/bin/env nextflow
//
// SpaDiT-flow: imputes the genes a spatial transcriptomics slide did not measure, from a single-cell reference
//

include { SPADIT } from './workflows/spadit'
include { leave_outputs ; take_outputs } from './subworkflows/local/outputs/main'
include { cloud_problems ; completion_text ; help_text ; place_problem ; slides_text } from './subworkflows/local/messages/main'

workflow {
    main:
    if (params.help) {
        println(help_text(file("${projectDir}/nextflow_schema.json"), workflow.manifest))
    }
    else if (params.version) {
        println("${workflow.manifest.name.tokenize('/').last()} ${workflow.manifest.version}")
    }
    else {
        if (!params.input || params.input == true) {
            error("No samplesheet: name one with --input (CSV, TSV, YAML or JSON; columns sample, st, sc). --help lists all parameters.")
        }
        // These are looked for, or handed to a task, before anything is checked
        ['input', 'predictions', 'folds', 'model', 'start_model', 'multiqc_config'].each { name ->
            def problem = place_problem(params[name])
            if (problem) {
                error("Parameter --${name} ${problem}.")
            }
        }
        def sheet = file(params.input, glob: false)
        if (!sheet.isFile() && !sheet.toUriString().contains('://')) {
            error("The samplesheet '${params.input}' is ${sheet.exists() ? 'not a file' : 'not there'}: check --input (CSV, TSV, YAML or JSON; columns sample, st, sc).")
        }

        def problems = cloud_problems(workflow.profile, params, workflow.workDir.toUriString())
        if (problems) {
            error("The profile can't run like this:\n" + problems.collect { problem -> "  - ${problem}" }.join('\n'))
        }

        take_outputs(params.outdir)
        SPADIT(sheet, params)

        def result = [:]
        SPADIT.out.slides.subscribe { slides ->
            result.slides = slides
            if (slides) {
                log.info("\nSlides:\n${slides_text(slides)}\n")
            }
        }
        workflow.onComplete = {
            leave_outputs(params.outdir, workflow.success, workflow.manifest.version)
            if (result.slides) {
                log.info(completion_text(result.slides, "${params.outdir}/multiqc/multiqc_report.html", workflow.success, params.monochrome_logs))
            }
        }
    }
}
