process BENCHMARK_PLOT {
    tag "${meta.id}"
    label 'process_single'
    publishDir { "${params.outdir}/benchmark/${meta.id}" }, mode: params.publish_dir_mode, pattern: '{plots,*.json}'

    input:
    tuple val(meta), path(slide), path(benchmark, stageAs: 'benchmark/*')

    output:
    tuple val(meta), path("plots"), optional: true, emit: plots
    tuple val(meta), path("plots/thumbnails/*.png"), optional: true, topic: facts, emit: thumbnails
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val("${task.process}"), val('spadit'), eval('spadit_benchmark_plot.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('matplotlib'), eval('''python3 -c "from importlib.metadata import version; print(version('matplotlib'))" || echo unknown'''), topic: versions, emit: versions_matplotlib

    script:
    def args = task.ext.args ?: ''
    """
    spadit_benchmark_plot.py \\
        --id '${meta.id}' \\
        --role slide \\
        --failure '${meta.id}.benchmark_plot.failure.json' \\
        --threads ${task.cpus} \\
        --benchmark benchmark \\
        --slide ${slide} \\
        ${args} \\
        --outdir plots
    """

    stub:
    """
    mkdir -p plots/thumbnails
    touch plots/benchmark_ranking.png 'plots/thumbnails/${meta.id}.benchmark.png'
    """
}
