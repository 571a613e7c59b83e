process TRAIN {
    tag "${meta.id}"
    label 'process_networks'
    label 'process_gpu'
    memory { "${Math.max(8, Math.ceil(needs.train_gib as double) as int) * task.attempt} GB" }
    time { "${Math.max(480, Math.ceil(needs.train_minutes as double) as int) * task.attempt} min" }
    publishDir { "${params.outdir}/slides/${meta.id}" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '*.{model,csv,json}', saveAs: { name -> name.endsWith('.model') ? 'model' : "facts/${name}" }

    input:
    tuple val(meta), path(slide), path(reference), path(split), path(resources), val(needs), path(trained, stageAs: 'trained/*')
    path(start, stageAs: 'start')

    output:
    tuple val(meta), path("${meta.id}.model"), optional: true, emit: model
    tuple val(meta), path("${meta.id}.curves.csv"), optional: true, topic: facts, emit: curves
    tuple val(meta), path("${meta.id}.training.json"), optional: true, topic: facts, emit: training
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val(meta), path("*.usage.json"), optional: true, topic: facts, emit: usage
    tuple val("${task.process}"), val('spadit'), eval('spadit_train.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('torch'), eval('''python3 -c "from importlib.metadata import version; print(version('torch'))" || echo unknown'''), topic: versions, emit: versions_torch
    tuple val("${task.process}"), val('lightning'), eval('''python3 -c "from importlib.metadata import version; print(version('lightning'))" || echo unknown'''), topic: versions, emit: versions_lightning

    script:
    def args = task.ext.args ?: ''
    // Checkpoints lie beside the tasks' work directories, since a retry gets a new one; IMPUTE removes them, when the models were safely handed on
    def begin = start ? '--start start' : ''
    def device = task.accelerator ? "cuda --gpus ${task.accelerator.request}" : task.ext.device ?: 'auto'
    """
    spadit_train.py \\
        --id '${meta.id}' \\
        --role slide \\
        --failure '${meta.id}.train.failure.json' \\
        --usage '${meta.id}.train.usage.json' \\
        --threads ${task.cpus} \\
        --slide ${slide} \\
        --reference ${reference} \\
        --split ${split} \\
        --resources ${resources} \\
        --device ${device} \\
        --checkpoint "\${NXF_TASK_WORKDIR:-\$PWD}/../../checkpoints/${meta.id}" \\
        ${begin} ${args} \\
        --output '${meta.id}.model' \\
        --curves '${meta.id}.curves.csv' \\
        --facts '${meta.id}.training.json'
    """

    stub:
    """
    mkdir '${meta.id}.model'
    touch '${meta.id}.model/model.json' '${meta.id}.curves.csv' '${meta.id}.training.json'
    """
}
