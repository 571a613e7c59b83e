process SPATIALDATA {
    tag "${meta.id}"
    label 'process_single'
    publishDir { "${params.outdir}/slides/${meta.id}" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '*.{zarr,json}', saveAs: { name -> name.endsWith('.json') ? "facts/${name}" : name }

    input:
    tuple val(meta), path(imputed)

    output:
    tuple val(meta), path("${meta.id}.spatialdata.zarr"), optional: true, emit: store
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val(meta), path("*.usage.json"), optional: true, topic: facts, emit: usage
    tuple val("${task.process}"), val('spadit'), eval('spadit_spatialdata.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('pyarrow'), eval('''python3 -c "from importlib.metadata import version; print(version('pyarrow'))" || echo unknown'''), topic: versions, emit: versions_pyarrow

    script:
    def args = task.ext.args ?: ''
    """
    spadit_spatialdata.py \\
        --id '${meta.id}' \\
        --role slide \\
        --failure '${meta.id}.spatialdata.failure.json' \\
        --usage '${meta.id}.spatialdata.usage.json' \\
        --threads ${task.cpus} \\
        --imputed ${imputed} \\
        ${args} \\
        --output '${meta.id}.spatialdata.zarr'
    """

    stub:
    """
    mkdir '${meta.id}.spatialdata.zarr'
    touch '${meta.id}.spatialdata.zarr/.zgroup'
    """
}
