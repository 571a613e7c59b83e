process PREPARE_REFERENCE {
    tag "${meta.id}"
    label 'process_single'
    publishDir { "${params.outdir}/references/${meta.id}" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '*.json'
    // The cache grows: as an input its state would be part of the task's hash, and -resume would redo the task. So only its name is, and
    // the container is given the folder here.
    containerOptions { workflow.containerEngine in ['docker', 'podman'] ? "-v '${cache}':'${cache}'" : workflow.containerEngine in ['singularity', 'apptainer'] ? "-B '${cache}'" : workflow.containerEngine == 'charliecloud' ? "-b '${cache}':'${cache}'" : '' }

    input:
    tuple val(meta), path(input, stageAs: 'input/*')
    val cache

    output:
    tuple val(meta), path("${meta.id}.qc.h5ad"), optional: true, emit: h5ad
    tuple val(meta), path("${meta.id}.qc.json"), optional: true, topic: facts, emit: facts
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val(meta), path("*.usage.json"), optional: true, topic: facts, emit: usage
    tuple val("${task.process}"), val('spadit'), eval('spadit_prepare_reference.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('anndata'), eval('''python3 -c "from importlib.metadata import version; print(version('anndata'))" || echo unknown'''), topic: versions, emit: versions_anndata

    script:
    def args = task.ext.args ?: ''
    def platform = meta.platform ? "--platform '${meta.platform}'" : ''
    // The name of a column is free text, quoted for the shell
    def batch = meta.batch ? "--batch '${meta.batch.replace("'", "'\\''")}'" : ''
    """
    spadit_prepare_reference.py \\
        --id '${meta.id}' \\
        --role reference \\
        --failure '${meta.id}.prepare_reference.failure.json' \\
        --usage '${meta.id}.prepare_reference.usage.json' \\
        --threads ${task.cpus} \\
        --input ${input} \\
        --cache '${cache}' \\
        ${platform} ${batch} ${args} \\
        --output '${meta.id}.qc.h5ad' \\
        --facts '${meta.id}.qc.json'
    """

    stub:
    """
    touch '${meta.id}.qc.h5ad' '${meta.id}.qc.json'
    """
}
