process SPLIT {
    tag "${meta.id}"
    label 'process_single'
    publishDir { "${params.outdir}/slides/${meta.id}/facts" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '*.json'

    input:
    tuple val(meta), path(slide), path(reference), path(genes, stageAs: 'genes/*')

    output:
    tuple val(meta), path("${meta.id}.split.json"), optional: true, topic: facts, emit: split
    tuple val(meta), path("${meta.id}.resources.json"), optional: true, topic: facts, emit: resources
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val("${task.process}"), val('spadit'), eval('spadit_split.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('numpy'), eval('''python3 -c "from importlib.metadata import version; print(version('numpy'))" || echo unknown'''), topic: versions, emit: versions_numpy

    script:
    def args = task.ext.args ?: ''
    def wanted = genes ? "--genes ${genes}" : ''
    """
    spadit_split.py \\
        --id '${meta.id}' \\
        --role slide \\
        --failure '${meta.id}.split.failure.json' \\
        --threads ${task.cpus} \\
        --slide ${slide} \\
        --reference ${reference} \\
        ${wanted} ${args} \\
        --output '${meta.id}.split.json' \\
        --resources '${meta.id}.resources.json'
    """

    // Numbers that TRAIN and IMPUTE ask for
    stub:
    """
    touch '${meta.id}.split.json'
    echo '{"train_gib": 1, "train_minutes": 1, "impute_gib": 1, "impute_minutes": 1}' > '${meta.id}.resources.json'
    """
}
