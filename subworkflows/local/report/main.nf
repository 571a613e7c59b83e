//
// One page over all slides for the facility: which are fine, which are not, and why
//

include { CONCLUDE  } from '../../../modules/local/conclude/main'
include { MULTIQC   } from '../../../modules/nf-core/multiqc/main'
include { SUMMARIZE } from '../../../modules/local/summarize/main'

workflow REPORT_COHORT {
    take:
    ch_inputs // channel: inputs.json
    ch_params // channel: params.json

    main:
    // Every step hands its facts, failures and software versions to these topics: what is missing shows how far a slide came
    ch_facts = channel.topic('facts').flatMap { _meta, files -> files instanceof List ? files : [files] }
    ch_versions = channel
        .topic('versions')
        .unique()
        .toList()
        .map { rows -> [rows + [['Workflow', 'nextflow', workflow.nextflow.version.toString()]]] }

    SUMMARIZE(
        ch_inputs,
        ch_params,
        ch_inputs.combine(ch_versions).map { _json, rows -> versions_yaml(rows) }.collectFile(name: 'versions.yml'),
        ch_facts.toSortedList { a, b -> a.name <=> b.name },
    )
    MULTIQC(
        SUMMARIZE.out.multiqc,
        file("${projectDir}/assets/multiqc_config.yml", checkIfExists: true),
        params.multiqc_config ? file(params.multiqc_config) : [],
        files("${projectDir}/assets/logo/*.png", checkIfExists: true),
    )
    // Nothing when the sheet was refused: the run is being stopped then
    ch_inputs
        .combine(ch_versions)
        .flatMap { _json, rows -> rows }
        .mix(SUMMARIZE.out.versions_spadit, MULTIQC.out.versions_multiqc)
        .toList()
        .filter { rows -> rows }
        .map { rows -> versions_yaml(rows) }
        .collectFile(name: 'software_versions.yml', storeDir: "${params.outdir}/pipeline_info")

    slides = SUMMARIZE.out.slides.map { json -> new groovy.json.JsonSlurper().parseText(json.text) }
    CONCLUDE(slides.map { rows -> problem(rows, params.strict) }.filter { text -> text }, MULTIQC.out.report)
    report = MULTIQC.out.report

    emit:
    slides // channel: list of maps, one per slide of the sheet: sample, status, reason ...
    report // channel: html
}

// 'READ_SLIDE:\n  anndata: 0.11.3' for each process, sorted
def versions_yaml(rows) {
    return rows
        .groupBy { process, _tool, _version -> process.tokenize(':').last() }
        .sort()
        .collect { process, entries -> "${process}:\n" + entries.collect { _process, tool, version -> "  ${tool}: '${version}'\n" }.unique().sort().join() }
        .join()
}

// Why the run as a whole has failed, null when it hasn't: with --strict because of any failed slide, else when not one slide came through
def problem(slides, strict) {
    def failed = slides.findAll { slide -> slide.status == 'failed' }
    if (!failed || (!strict && failed.size() < slides.size())) {
        return null
    }
    return "${failed.size()} of ${slides.size()} slides failed${strict ? ', and --strict was given' : ''}. Their names and reasons are at the end.".toString()
}
