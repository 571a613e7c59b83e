process RANK {
    tag "${meta.id} ${what}"
    label 'process_low'
    publishDir { "${params.outdir}/benchmark/${meta.id}" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '{benchmark,robustness,ablation}/*', saveAs: { name -> name.tokenize('/').last() }
    publishDir { "${params.outdir}/benchmark/${meta.id}" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '*.failure.json'

    input:
    tuple val(meta), path(slide), path(folds), path(plan), path(parts, stageAs: 'parts/*'), val(outside_names), path(outside, stageAs: 'outside/?/*')
    val(what)

    output:
    tuple val(meta), path("${what}/*.csv"), optional: true, emit: tables
    tuple val(meta), path("${what}/*.h5ad"), optional: true, emit: imputed
    tuple val(meta), path("${what}/benchmark.json"), optional: true, emit: benchmark
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val("${task.process}"), val('spadit'), eval('spadit_rank.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('scipy'), eval('''python3 -c "from importlib.metadata import version; print(version('scipy'))" || echo unknown'''), topic: versions, emit: versions_scipy

    script:
    def args = task.ext.args ?: ''
    def elsewhere = outside_names ? "--outside ${outside} --outside-names ${outside_names.join(' ')}" : ''
    """
    spadit_rank.py \\
        --id '${meta.id}' \\
        --role slide \\
        --failure '${meta.id}.rank.failure.json' \\
        --threads ${task.cpus} \\
        --slide ${slide} \\
        --folds ${folds} \\
        --plan ${plan} \\
        --parts parts \\
        --what ${what} \\
        ${elsewhere} ${args} \\
        --output ${what}
    """

    stub:
    def files = [benchmark: 'metrics.csv ranking.csv benchmark.json ridge.h5ad', robustness: 'robustness.csv robustness_metrics.csv', ablation: 'ablation.csv ablation_metrics.csv']
    """
    mkdir ${what}
    cd ${what}
    touch ${files[what]}
    """
}
