process BENCHMARK_PLOT {
    tag "${meta.id}"
    label 'process_single'
    publishDir { "${params.outdir}/benchmark/${meta.id}" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '{plots,*.failure.json}'

    input:
    tuple val(meta), path(slide), path(benchmark, stageAs: 'benchmark/*')

    output:
    tuple val(meta), path("plots"), optional: true, emit: plots
    tuple val(meta), path("plots/thumbnails/*.png"), optional: true, topic: facts, emit: thumbnails
    tuple val(meta), path("${meta.id}.ranking.csv"), optional: true, topic: facts, emit: ranking
    tuple val(meta), path("${meta.id}.benchmark.json"), optional: true, topic: facts, emit: benchmark
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val("${task.process}"), val('spadit'), eval('spadit_benchmark_plot.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('matplotlib'), eval('''python3 -c "from importlib.metadata import version; print(version('matplotlib'))" || echo unknown'''), topic: versions, emit: versions_matplotlib

    script:
    def args = task.ext.args ?: ''
    // The reports over all slides tell facts apart by the slide's name
    """
    for name in ranking.csv benchmark.json; do
        if [ -e "benchmark/\$name" ]; then cp "benchmark/\$name" '${meta.id}.'"\$name"; fi
    done
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
    touch '${meta.id}.ranking.csv' '${meta.id}.benchmark.json' plots/benchmark_ranking.png 'plots/thumbnails/${meta.id}.benchmark.png'
    """
}
