process PAIR {
    tag "${meta.id}"
    label 'process_single'
    publishDir { "${params.outdir}/slides/${meta.id}/facts" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '*.json'

    input:
    tuple val(meta), path(slide), path(reference)

    output:
    tuple val(meta), path("${meta.id}.slide.h5ad"), path("${meta.id}.reference.h5ad"), optional: true, emit: pair
    tuple val(meta), path("${meta.id}.pairing.json"), optional: true, topic: facts, emit: facts
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val("${task.process}"), val('spadit'), eval('spadit_pair.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('scanpy'), eval('''python3 -c "from importlib.metadata import version; print(version('scanpy'))" || echo unknown'''), topic: versions, emit: versions_scanpy

    script:
    def args = task.ext.args ?: ''
    def species = meta.species ? "--species '${meta.species}'" : ''
    """
    spadit_pair.py \\
        --id '${meta.id}' \\
        --role slide \\
        --failure '${meta.id}.pair.failure.json' \\
        --threads ${task.cpus} \\
        --slide ${slide} \\
        --reference ${reference} \\
        --reference-id '${meta.reference}' \\
        ${species} ${args} \\
        --output-slide '${meta.id}.slide.h5ad' \\
        --output-reference '${meta.id}.reference.h5ad' \\
        --facts '${meta.id}.pairing.json'
    """

    stub:
    """
    touch '${meta.id}.slide.h5ad' '${meta.id}.reference.h5ad' '${meta.id}.pairing.json'
    """
}
