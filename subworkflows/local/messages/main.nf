//
// What the pipeline says on the terminal: the help, what a cloud profile lacks, each slide's status, and what failed
//

// All parameters of nextflow_schema.json by group: name, type, default, range, what it does
def help_text(schema_file, manifest) {
    def schema = new groovy.json.JsonSlurper().parseText(schema_file.text)
    def groups = schema['$defs'].values().collect { group ->
        def rows = group.properties.findAll { _name, p -> !p.hidden }.collect { name, p ->
            def facts = [p.type instanceof List ? p.type.findAll { t -> t != 'null' }.join('|') : p.type, range_text(p)].findAll()
            facts << (name in (group.required ?: []) ? 'required' : "default: ${p.default == null ? 'none' : p.default}")
            def lines = [p.description, p.help_text].findAll().collectMany { text -> wrapped(text, 92) }
            "  --${name}  [${facts.join('; ')}]\n" + lines.collect { line -> "      ${line}\n" }.join()
        }
        "${group.title}\n" + rows.join()
    }
    return """\
        |${manifest.name.tokenize('/').last()} ${manifest.version}: ${manifest.description}
        |
        |  nextflow run <this pipeline> -profile <docker|podman|singularity|apptainer|charliecloud> --input samplesheet.csv --outdir results
        |
        |""".stripMargin() + groups.join('\n')
}

def range_text(p) {
    if (p['enum']) {
        return p['enum'].findAll { value -> value != null }.join(' | ')
    }
    if (p.minimum != null && p.maximum != null) {
        return "${p.minimum} to ${p.maximum}"
    }
    return p.minimum != null ? ">= ${p.minimum}" : p.maximum != null ? "<= ${p.maximum}" : null
}

// A text in lines of at most width characters
def wrapped(text, width) {
    return text.tokenize().inject([]) { lines, word ->
        lines && lines[-1].size() + word.size() < width ? lines[0..<-1] + ["${lines[-1]} ${word}".toString()] : lines + [word]
    }
}

// What the profiles of clouds lack, in sentences; nothing for other profiles
def cloud_problems(profiles, given, work_dir) {
    def registry = [registry: 'the container registry that the images were pushed to']
    def needs = [
        awsbatch: [aws_queue: 'the job queue'] + registry,
        googlebatch: [google_project: 'the project', google_location: 'the location, such as europe-west4'] + registry,
        azurebatch: [
            azure_batch_account: 'the Batch account',
            azure_storage_account: 'the storage account',
            azure_location: 'the location, such as westeurope',
        ] + registry,
        k8s: [k8s_claim: 'a volume claim that all pods may write'] + registry,
    ]
    def storage = [awsbatch: 's3://', googlebatch: 'gs://', azurebatch: 'az://']
    return profiles.tokenize(',').findAll { profile -> profile in needs }.collectMany { profile ->
        def missing = needs[profile].findAll { name, _what -> !given[name] }.collect { name, what -> "-profile ${profile} needs --${name}: ${what}." }
        def elsewhere = storage[profile] && !work_dir.startsWith(storage[profile])
            ? ["-profile ${profile} needs a work directory in its storage: -w ${storage[profile]}bucket/folder (it is ${work_dir})."]
            : []
        missing + elsewhere
    }
}

// Why a file can't be taken, null when it can. The value itself isn't repeated: it may hold a password or what a shell would run
def place_problem(value) {
    def text = value instanceof CharSequence ? value.toString() : ''
    def scheme = text.contains('://') ? text.split('://')[0].toLowerCase() : ''
    if (scheme && !(scheme in ['https', 'http', 'ftp', 's3', 'gs', 'az'])) {
        return 'has an unknown scheme; expected is a path or a URL with one of https, http, ftp, s3, gs, az'
    }
    if (text =~ '://[^/]*@') {
        return "holds a user name or password; expected is a URL without (give credentials in Nextflow's configuration)"
    }
    // only the name is seen by a shell
    def name = text.tokenize('/') ? text.tokenize('/').last() : ''
    if (name =~ '["\'`$;|<>*\\[\\]{}!\\\\\\p{Cntrl}]' || !scheme && name =~ '[&?]') {
        return 'holds a character with a meaning for the shell; expected is a path without it: rename the file'
    }
    return null
}

// One line per slide: its status, its name, and why it isn't a plain pass
def slides_text(slides) {
    def width = slides.collect { slide -> slide.sample.size() }.max() ?: 0
    return slides.collect { slide -> "  ${slide.status.padRight(15)}  ${slide.sample.padRight(width)}  ${slide.reason ?: ''}".stripTrailing() }.join('\n')
}

// What is said at the very end
def completion_text(slides, report, success, monochrome) {
    def failed = slides.findAll { slide -> slide.status == 'failed' }
    def done = "${slides.size() - failed.size()} of ${slides.size()} slides done."
    return [
        coloured(!success ? 31 : failed ? 33 : 32, done, monochrome),
        failed ? "Failed:\n${slides_text(failed)}" : '',
        "Report: ${report}",
    ].findAll().join('\n')
}

def coloured(code, text, monochrome) {
    return monochrome ? text : "\033[${code}m${text}\033[0m"
}
