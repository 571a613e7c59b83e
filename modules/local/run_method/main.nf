process RUN_METHOD {
    tag "${meta.id} ${job.method} fold ${job.fold}${job.rate ? " rate ${job.rate}" : ''}${job.what == 'ablation' ? " seed ${job.seed}" : ''}"
    label 'process_method'
    cpus { job.kind == 'method' ? 2 : 1 }
    memory { "${job.memory_gib * task.attempt} GB" }
    time { "${job.minutes * task.attempt} min" }

    input:
    tuple val(meta), val(job), path(slide), path(reference), path(folds)

    output:
    tuple val(meta), val(job), path("${job.name}.{h5ad,run.json,failure.json}"), optional: true, emit: part
    tuple val("${task.process}"), val('spadit'), eval('spadit_method.py --version'), topic: versions, emit: versions_spadit

    script:
    def args = task.ext.args ?: ''
    def device = task.accelerator ? 'cuda' : task.ext.device ?: 'cpu'
    """
    spadit_method.py \\
        --id '${meta.id}' \\
        --role slide \\
        --failure '${job.name}.failure.json' \\
        --threads ${task.cpus} \\
        --slide ${slide} \\
        --reference ${reference} \\
        --folds ${folds} \\
        --what ${job.what} \\
        --method '${job.method}' \\
        --fold ${job.fold} \\
        --rate ${job.rate} \\
        --seed ${job.seed} \\
        --device ${device} \\
        ${args} \\
        --output '${job.name}.h5ad' \\
        --facts '${job.name}.run.json'
    """

    stub:
    """
    touch '${job.name}.h5ad' '${job.name}.run.json'
    """
}
