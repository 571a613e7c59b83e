process READ {
    tag "${meta.id}"
    label 'process_single'
    publishDir { meta.role == 'slide' ? "${params.outdir}/slides/${meta.id}/facts" : "${params.outdir}/references/${meta.id}" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '*.json'

    input:
    tuple val(meta), path(input, stageAs: 'input/*')

    output:
    tuple val(meta), path("${meta.id}.h5ad"), optional: true, emit: h5ad
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val(meta), path("*.usage.json"), optional: true, topic: facts, emit: usage
    tuple val("${task.process}"), val('spadit'), eval('spadit_read.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('anndata'), eval('''python3 -c "from importlib.metadata import version; print(version('anndata'))" || echo unknown'''), topic: versions, emit: versions_anndata

    script:
    def args = task.ext.args ?: ''
    def platform = meta.platform ? "--platform '${meta.platform}'" : ''
    def bin_size = meta.bin_size ? "--bin-size '${meta.bin_size}'" : ''
    // The name of a column is free text, quoted for the shell
    def batch = meta.batch ? "--batch '${meta.batch.replace("'", "'\\''")}'" : ''
    """
    spadit_read.py \\
        --id '${meta.id}' \\
        --role '${meta.role}' \\
        --failure '${meta.id}.read.failure.json' \\
        --usage '${meta.id}.read.usage.json' \\
        --threads ${task.cpus} \\
        --input ${input} \\
        ${platform} ${bin_size} ${batch} ${args} \\
        --output '${meta.id}.h5ad'
    """

    stub:
    """
    touch '${meta.id}.h5ad'
    """
}
