process PLOT {
    tag "${meta.id}"
    label 'process_single'
    publishDir { "${params.outdir}/slides/${meta.id}" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '{plots,*.json}', saveAs: { name -> name.endsWith('.json') ? "facts/${name}" : name }

    input:
    tuple val(meta), path(imputed), path(slide), path(metrics), path(evaluation)

    output:
    tuple val(meta), path("plots"), optional: true, emit: plots
    tuple val(meta), path("plots/thumbnails/*.png"), optional: true, topic: facts, emit: thumbnails
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val("${task.process}"), val('spadit'), eval('spadit_plot.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('matplotlib'), eval('''python3 -c "from importlib.metadata import version; print(version('matplotlib'))" || echo unknown'''), topic: versions, emit: versions_matplotlib

    script:
    def args = task.ext.args ?: ''
    """
    spadit_plot.py \\
        --id '${meta.id}' \\
        --role slide \\
        --failure '${meta.id}.plot.failure.json' \\
        --threads ${task.cpus} \\
        --imputed ${imputed} \\
        --slide ${slide} \\
        --metrics ${metrics} \\
        --evaluation ${evaluation} \\
        ${args} \\
        --outdir plots
    """

    stub:
    """
    mkdir -p plots/thumbnails
    touch 'plots/${meta.id}.png' 'plots/thumbnails/${meta.id}.thumbnail.png'
    """
}
