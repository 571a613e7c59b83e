process QC {
    tag "${meta.id}"
    label 'process_single'
    publishDir { meta.role == 'slide' ? "${params.outdir}/slides/${meta.id}/facts" : "${params.outdir}/references/${meta.id}" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '*.json'

    input:
    tuple val(meta), path(h5ad)

    output:
    tuple val(meta), path("${meta.id}.qc.h5ad"), optional: true, emit: h5ad
    tuple val(meta), path("${meta.id}.qc.json"), optional: true, topic: facts, emit: facts
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val("${task.process}"), val('spadit'), eval('spadit_qc.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('scanpy'), eval('''python3 -c "from importlib.metadata import version; print(version('scanpy'))" || echo unknown'''), topic: versions, emit: versions_scanpy

    script:
    def args = task.ext.args ?: ''
    """
    spadit_qc.py \\
        --id '${meta.id}' \\
        --role '${meta.role}' \\
        --failure '${meta.id}.qc.failure.json' \\
        --threads ${task.cpus} \\
        --input ${h5ad} \\
        ${args} \\
        --output '${meta.id}.qc.h5ad' \\
        --facts '${meta.id}.qc.json'
    """

    stub:
    """
    touch '${meta.id}.qc.h5ad' '${meta.id}.qc.json'
    """
}
