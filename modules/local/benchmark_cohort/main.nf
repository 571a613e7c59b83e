process BENCHMARK_COHORT {
    tag "cohort"
    label 'process_single'
    publishDir { "${params.outdir}/benchmark" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: 'plots'

    input:
    path(rankings, stageAs: 'rankings/*')

    output:
    path("plots"), emit: plots
    tuple val("${task.process}"), val('spadit'), eval('spadit_benchmark_cohort.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('matplotlib'), eval('''python3 -c "from importlib.metadata import version; print(version('matplotlib'))" || echo unknown'''), topic: versions, emit: versions_matplotlib

    script:
    def args = task.ext.args ?: ''
    """
    spadit_benchmark_cohort.py \\
        --id cohort \\
        --threads ${task.cpus} \\
        --rankings rankings \\
        ${args} \\
        --outdir plots
    """

    stub:
    """
    mkdir -p plots/thumbnails
    touch plots/benchmark_accuracy.png plots/thumbnails/benchmark_accuracy.png
    """
}
