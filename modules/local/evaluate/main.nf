process EVALUATE {
    tag "${meta.id}"
    label 'process_low'
    publishDir { "${params.outdir}/slides/${meta.id}" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '*.{csv,json}', saveAs: { name -> name.endsWith('.json') ? "facts/${name}" : name }

    input:
    tuple val(meta), path(imputed), path(slide), path(reference), path(split)

    output:
    tuple val(meta), path("${meta.id}.metrics.csv"), optional: true, topic: facts, emit: metrics
    tuple val(meta), path("${meta.id}.evaluation.json"), optional: true, topic: facts, emit: evaluation
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val("${task.process}"), val('spadit'), eval('spadit_evaluate.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('scikit-image'), eval('''python3 -c "from importlib.metadata import version; print(version('scikit-image'))" || echo unknown'''), topic: versions, emit: versions_scikit_image
    tuple val("${task.process}"), val('scipy'), eval('''python3 -c "from importlib.metadata import version; print(version('scipy'))" || echo unknown'''), topic: versions, emit: versions_scipy

    script:
    def args = task.ext.args ?: ''
    """
    spadit_evaluate.py \\
        --id '${meta.id}' \\
        --role slide \\
        --failure '${meta.id}.evaluate.failure.json' \\
        --threads ${task.cpus} \\
        --imputed ${imputed} \\
        --slide ${slide} \\
        --reference ${reference} \\
        --split ${split} \\
        ${args} \\
        --metrics '${meta.id}.metrics.csv' \\
        --facts '${meta.id}.evaluation.json'
    """

    stub:
    """
    touch '${meta.id}.metrics.csv' '${meta.id}.evaluation.json'
    """
}
