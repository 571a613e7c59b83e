process IMPUTE {
    tag "${meta.id}"
    label 'process_gpu'
    cpus 1 // more bring nothing (benchmarks/README.md), and another number of threads rounds otherwise
    memory { "${Math.max(8, Math.ceil(needs.impute_gib as double) as int) * task.attempt} GB" }
    time { "${Math.max(480, Math.ceil(needs.impute_minutes as double) as int) * task.attempt} min" }
    publishDir { "${params.outdir}/slides/${meta.id}" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '*.{h5ad,json}', saveAs: { name -> name.endsWith('.json') ? "facts/${name}" : name }

    input:
    tuple val(meta), path(slide), path(reference), path(split), path(model), path(training), val(needs)

    output:
    tuple val(meta), path("${meta.id}.imputed.h5ad"), optional: true, emit: imputed
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val(meta), path("*.usage.json"), optional: true, topic: facts, emit: usage
    tuple val("${task.process}"), val('spadit'), eval('spadit_impute.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('torch'), eval('''python3 -c "from importlib.metadata import version; print(version('torch'))" || echo unknown'''), topic: versions, emit: versions_torch

    script:
    def args = task.ext.args ?: ''
    def device = task.accelerator ? 'cuda' : task.ext.device ?: 'auto'
    """
    spadit_impute.py \\
        --id '${meta.id}' \\
        --role slide \\
        --failure '${meta.id}.impute.failure.json' \\
        --usage '${meta.id}.impute.usage.json' \\
        --threads ${task.cpus} \\
        --slide ${slide} \\
        --reference ${reference} \\
        --split ${split} \\
        --model ${model} \\
        --training ${training} \\
        --device ${device} \\
        --checkpoint "\${NXF_TASK_WORKDIR:-\$PWD}/../../checkpoints/${meta.id}" \\
        ${args} \\
        --output '${meta.id}.imputed.h5ad'
    """

    stub:
    """
    touch '${meta.id}.imputed.h5ad'
    """
}
