process REPORT {
    tag "${meta.id}"
    label 'process_single'
    publishDir { "${params.outdir}/slides/${meta.id}" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '*.{html,json}', saveAs: { name -> name.endsWith('.json') ? "facts/${name}" : name }

    input:
    tuple val(meta), path(imputed), path(slide), path(reference), path(metrics), path(qc_slide, stageAs: 'slide/*'), path(qc_reference, stageAs: 'reference/*'), path(pairing), path(split), path(training), path(evaluation), path(curves), path(plots), path(benchmark, stageAs: 'benchmark/*')

    output:
    tuple val(meta), path("${meta.id}.report.html"), optional: true, emit: html
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val("${task.process}"), val('spadit'), eval('spadit_report.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('jinja2'), eval('''python3 -c "from importlib.metadata import version; print(version('jinja2'))" || echo unknown'''), topic: versions, emit: versions_jinja2

    script:
    def args = task.ext.args ?: ''
    def compared = benchmark ? "--ranking 'benchmark/${meta.id}.ranking.csv' --benchmark 'benchmark/${meta.id}.benchmark.json' --benchmark-plots benchmark/plots" : ''
    """
    spadit_report.py \\
        --id '${meta.id}' \\
        --role slide \\
        --failure '${meta.id}.report.failure.json' \\
        --threads ${task.cpus} \\
        --imputed ${imputed} \\
        --slide ${slide} \\
        --reference ${reference} \\
        --metrics ${metrics} \\
        --qc-slide ${qc_slide} \\
        --qc-reference ${qc_reference} \\
        --pairing ${pairing} \\
        --split ${split} \\
        --training ${training} \\
        --evaluation ${evaluation} \\
        --curves ${curves} \\
        --plots ${plots} \\
        ${compared} ${args} \\
        --output '${meta.id}.report.html'
    """

    stub:
    """
    touch '${meta.id}.report.html'
    """
}
