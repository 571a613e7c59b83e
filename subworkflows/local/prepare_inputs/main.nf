//
// From the samplesheet to slides and references, after sheet and parameters were checked as a whole
//

include { CHECK_INPUTS } from '../../../modules/local/check_inputs/main'

workflow PREPARE_INPUTS {
    take:
    sheet // path: the samplesheet
    all_params // map: all parameters, known and unknown

    main:
    CHECK_INPUTS(
        sheet,
        groovy.json.JsonOutput.toJson(masked(all_params, '')),
        file("${projectDir}/assets/schema_input.json", checkIfExists: true),
        file("${projectDir}/nextflow_schema.json", checkIfExists: true),
        present(all_params.predictions) ?: [],
    )

    ch_inputs = CHECK_INPUTS.out.inputs.map { json -> checked_inputs(new groovy.json.JsonSlurper().parseText(json.text), sheet, all_params) }
    ch_rows = ch_inputs.flatMap { found -> found.slides }
    genes = is_file(all_params.genes) ? present(all_params.genes) ?: [] : []
    slides = ch_rows.map { row -> [slide_meta(row), resolved(row.st, sheet), row.genes ? resolved(row.genes, sheet) : genes] }
    references = ch_rows.map { row -> [reference_meta(row), resolved(row.sc, sheet)] }.unique()
    predictions = ch_inputs.flatMap { found ->
        found.slides.collect { row ->
            def own = found.predictions.findAll { prediction -> prediction.sample == row.sample }
            [slide_meta(row), own.collect { prediction -> prediction.method }, own.collect { prediction -> resolved(prediction.path, file(all_params.predictions)) }]
        }
    }
    inputs = ch_inputs.map { found -> groovy.json.JsonOutput.prettyPrint(groovy.json.JsonOutput.toJson(found)) }.collectFile(name: 'inputs.json')
    params_json = CHECK_INPUTS.out.params

    emit:
    slides // channel: [ meta, st, genes ]
    references // channel: [ meta, sc ], each file once
    predictions // channel: [ meta, [ names of methods ], [ files ] ], made elsewhere, of every slide
    inputs // channel: inputs.json, with the reference's id in each row
    params_json // channel: params.json
}

// What is wrong with sheet and parameters stops the run here, all of it in one message, with the files that aren't there, also of rows that
// have other faults; else the rows with 'reference' added.
def checked_inputs(inputs, sheet, all_params) {
    // Nothing is looked for in the network when something else is wrong already
    def missing = inputs.slides.collectMany { row ->
        ['st', 'sc', 'genes']
            .findAll { column -> row[column] && !(inputs.errors && row[column].contains('://')) && !reachable(resolved(row[column], sheet)) }
            .collect { column -> "${row.where}, column '${column}': there is no file '${masked(row[column], '')}' (looked for ${masked(resolved(row[column], sheet).toUriString(), '')}); expected is a path relative to the samplesheet, an absolute path or a URL." }
    }
    def missing_predictions = inputs.predictions
        .findAll { row -> row.path && !reachable(resolved(row.path, file(all_params.predictions))) }
        .collect { row -> "Predictions, ${row.where.toLowerCase()}, column 'path': there is no file '${masked(row.path, '')}'; expected is a path relative to the sheet of predictions, an absolute path or a URL." }
    def missing_files = ['folds', 'predictions', 'start_model', 'multiqc_config']
        .findAll { name -> all_params[name] instanceof CharSequence && !all_params[name].toString().isInteger() && !present(all_params[name]) }
        .collect { name -> "Parameter --${name}: there is no file '${masked(all_params[name], '')}'." }
    if (is_file(all_params.genes) && !present(all_params.genes)) {
        missing_files << "Parameter --genes: there is no file '${masked(all_params.genes, '')}'."
    }
    def problems = inputs.errors + missing + missing_predictions + missing_files + clashing_batches(inputs.slides, sheet)
    if (problems) {
        error("${problems.size() == 1 ? 'There is one problem' : "There are ${problems.size()} problems"} with the samplesheet or the parameters; nothing was run:\n" + problems.collect { problem -> "  - ${problem}" }.join('\n'))
    }
    inputs.warnings.each { warning -> log.warn(warning) }
    def ids = reference_ids(inputs.slides, sheet)
    def batches = inputs.slides.findAll { row -> row.batch }.collectEntries { row -> [resolved(row.sc, sheet).toUriString(), row.batch] }
    return inputs + [
        slides: inputs.slides.collect { row ->
            def sc = resolved(row.sc, sheet).toUriString()
            row + [reference: ids[sc], batch: batches[sc] ?: '', content: content(resolved(row.st, sheet)), reference_content: content(resolved(row.sc, sheet))]
        }
    ]
}

// A value as it may be kept and shown: without what a parameter named like a secret holds, and without passwords and signatures of URLs
def masked(value, name) {
    if (value instanceof Map) {
        return value.collectEntries { key, member -> [key, masked(member, key)] }
    }
    if (value instanceof List) {
        return value.collect { member -> masked(member, name) }
    }
    if (value != null && name.toString().toLowerCase() =~ 'passw|secret|token|credential|api_?key|access_?key') {
        return '***'
    }
    return value instanceof CharSequence ? value.toString().replaceAll('(?<=://)[^/\\s]*@', '***@').replaceAll('(://[^\\s?#]*)[?#]\\S+', '$1?…') : value
}

// Does --genes name a file? Else it is a list of genes, which SPLIT is given in its arguments (conf/modules.config)
def is_file(genes) {
    return genes instanceof CharSequence && genes ==~ /(?i).*\.(txt|csv|tsv)/
}

// A file that a parameter names; null when there is none
def present(value) {
    def path = value instanceof CharSequence ? file(value, glob: false) : null
    return path && reachable(path) ? path : null
}

// A reference is read once, so all rows that name a batch column of it must name the same one
def clashing_batches(rows, sheet) {
    return rows
        .findAll { row -> row.sc && row.batch }
        .groupBy { row -> resolved(row.sc, sheet).toUriString() }
        .findAll { _sc, group -> group.collect { row -> row.batch }.unique().size() > 1 }
        .collect { _sc, group ->
            "Column 'batch': the reference '${group[0].sc}' has " + group.collect { row -> "'${row.batch}' (${row.where.toLowerCase()})" }.join(' and ') + '. Name the same column in all rows of one reference.'
        }
}

// A reference is one file, however often the sheet names it. Its id is made of the names of its folder and itself ('mouse/sc.h5ad':
// 'mouse_sc'), so that other rows don't change it; where that is taken already, also by a sample, a number is added.
def reference_ids(rows, sheet) {
    def taken = rows.collect { row -> row.sample } as Set
    return rows.collect { row -> resolved(row.sc, sheet) }.unique().collectEntries { path ->
        def name = [path.parent?.name, path.name.replaceFirst(/(\.(h5ad|h5|csv|tsv|txt|mtx|loom|zarr|rds))?(\.gz)?$/, '')].findAll().join('_')
        def stem = name.replaceAll(/[^A-Za-z0-9_.-]+/, '_').replaceFirst(/^[^A-Za-z0-9]+/, '') ?: 'reference'
        def id = ([stem] + (2..(rows.size() * 2 + 2)).collect { n -> "${stem}_${n}".toString() }).find { candidate -> !(candidate in taken) }
        taken << id
        [path.toUriString(), id]
    }
}

def slide_meta(row) {
    return [id: row.sample, role: 'slide', reference: row.reference, platform: row.platform ?: '', bin_size: row.bin_size ?: '', species: row.species ?: '', content: row.content]
}

def reference_meta(row) {
    return [id: row.reference, role: 'reference', batch: row.batch, content: row.reference_content]
}

// What a folder holds, so that -resume notices a file that was replaced in it: Nextflow looks at the folder itself only. Empty for a file.
def content(path) {
    if (!path.isDirectory()) {
        return ''
    }
    def root = path.toRealPath()
    // Links to folders are not followed, so one that leads back up doesn't matter
    def lines = java.nio.file.Files
        .walk(root)
        .toList()
        .findAll { inner -> inner.exists() && !inner.isDirectory() }
        .collect { inner -> "${root.relativize(inner)} ${inner.size()} ${inner.lastModified()}".toString() }
    return lines.sort().join('\n').md5()
}

// URLs and absolute paths as they are, others from the samplesheet's folder
def resolved(value, sheet) {
    def name = value.toString()
    return name.contains('://') || name.startsWith('/') ? file(name, glob: false, type: 'any') : sheet.toAbsolutePath().parent.resolve(name).normalize()
}

def reachable(path) {
    try {
        return path.exists()
    }
    catch (Exception _e) {
        return false
    }
}
