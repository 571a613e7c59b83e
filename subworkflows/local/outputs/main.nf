//
// The output folder: one run at a time writes to it, and when that has ended a manifest says what it left there (./spadit verify)
//

// What the pipeline publishes to, below --outdir
def published_folders() {
    return ['benchmark', 'multiqc', 'pipeline_info', 'references', 'slides']
}

// Take the folder for this run. From now on no manifest vouches for what is in it, until the run has ended.
def take_outputs(outdir) {
    def info = file("${outdir}/pipeline_info", glob: false)
    def mark = info.resolve('running.json')
    try {
        java.nio.file.Files.createDirectories(info)
        def other = mark.exists() ? marked(mark) : [:]
        if (alive(other)) {
            error("Another run, started at ${other.started} in ${other.folder}, is writing to the output folder '${outdir}'. Wait for its end, or choose another --outdir.")
        }
        mark.text = groovy.json.JsonOutput.toJson(own_mark())
        info.resolve('manifest.json').delete()
    }
    catch (java.io.IOException e) {
        error("The output folder '${outdir}' can't be written to (${e.class.simpleName}: ${e.message}). Choose another --outdir, or make room and give yourself the right to write there.")
    }
}

// The run has ended: write what is in the folder, with size and checksum, whole or not at all
def leave_outputs(outdir, success, version) {
    def root = file(outdir, glob: false)
    def info = root.resolve('pipeline_info')
    try {
        def files = published_folders()
            .collectMany { name -> files_below(root.resolve(name)) }
            .collectEntries { path -> [root.relativize(path).toString(), path] }
            .findAll { name, _path -> !(name ==~ /pipeline_info\/(execution_|pipeline_dag_|running\.json|manifest\.json|\.manifest).*/) }
            .sort()
            .collectEntries { name, path -> [name, [size: path.size(), sha256: sha256(path)]] }
        def content = [kind: 'manifest', version: 1, pipeline: version, success: success, folders: published_folders(), files: files]
        def half = info.resolve('.manifest.json.half')
        half.text = groovy.json.JsonOutput.prettyPrint(groovy.json.JsonOutput.toJson(content)) + '\n'
        java.nio.file.Files.move(half, info.resolve('manifest.json'), java.nio.file.StandardCopyOption.REPLACE_EXISTING)
        info.resolve('running.json').delete()
    }
    catch (java.io.IOException e) {
        log.error("The manifest of '${outdir}' could not be written (${e.class.simpleName}: ${e.message}): './spadit verify' can't check this folder. Start the run again with -resume.")
    }
}

def files_below(folder) {
    return folder.exists() ? folder.listFiles().collectMany { path -> path.isDirectory() ? files_below(path) : [path] } : []
}

def sha256(path) {
    def digest = java.security.MessageDigest.getInstance('SHA-256')
    path.withInputStream { stream -> stream.eachByte(1048576) { buffer, n -> digest.update(buffer, 0, n) } }
    return digest.digest().encodeHex().toString()
}

// This process, so that others can tell whether it still runs; 'began' because numbers of processes are used again
def own_mark() {
    def own = java.lang.ProcessHandle.current()
    return [
        host: host(),
        pid: own.pid(),
        began: own.info().startInstant().map { instant -> instant.toString() }.orElse(''),
        started: workflow.start.toString(),
        folder: workflow.launchDir.toString(),
    ]
}

def marked(mark) {
    try {
        return new groovy.json.JsonSlurper().parseText(mark.text)
    }
    catch (Exception _e) {
        return [:]
    }
}

// Is the run that left this mark still there? Of another machine nobody can tell: it is warned of.
def alive(mark) {
    if (!mark.pid) {
        return false
    }
    if (mark.host != host()) {
        log.warn("A run that was started at ${mark.started} on ${mark.host} has not left the output folder. If it still runs, stop one of the two: they would write over each other's files.")
        return false
    }
    def process = java.lang.ProcessHandle.of(mark.pid as long)
    return process.isPresent() && process.get().pid() != java.lang.ProcessHandle.current().pid() && process.get().info().startInstant().map { instant -> instant.toString() }.orElse('') == mark.began
}

def host() {
    try {
        return java.net.InetAddress.getLocalHost().getHostName()
    }
    catch (java.net.UnknownHostException _e) {
        return 'unknown'
    }
}
