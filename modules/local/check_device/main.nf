process CHECK_DEVICE {
    label 'process_single'
    label 'process_gpu'
    publishDir { "${params.outdir}/pipeline_info" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: 'device.json'

    input:
    val(meta)

    output:
    tuple val(meta), path("device.json"), topic: facts, emit: facts
    tuple val("${task.process}"), val('spadit'), eval('spadit_check_device.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('torch'), eval('''python3 -c "from importlib.metadata import version; print(version('torch'))" || echo unknown'''), topic: versions, emit: versions_torch

    script:
    def args = task.ext.args ?: ''
    def device = task.accelerator ? 'cuda' : task.ext.device ?: 'auto'
    """
    spadit_check_device.py \\
        --id '${meta.id}' \\
        --threads ${task.cpus} \\
        --device ${device} \\
        ${args} \\
        --output device.json
    """

    stub:
    """
    echo '{}' > device.json
    """
}
