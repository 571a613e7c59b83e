process MULTIQC {
    label 'process_single'

    input:
    path(multiqc_files, stageAs: '?/*')
    path(multiqc_config)
    path(extra_multiqc_config, stageAs: 'extra/*')
    path(multiqc_logos)

    output:
    path("multiqc_report.html"), emit: report
    path("multiqc_report_data"), emit: data
    tuple val("${task.process}"), val('multiqc'), eval('multiqc --version | sed "s/.* //g"'), emit: versions_multiqc

    script:
    def args = task.ext.args ?: ''
    def config = multiqc_config ? "--config ${multiqc_config}" : ''
    def extra_config = extra_multiqc_config ? "--config ${extra_multiqc_config}" : ''
    """
    multiqc \\
        --force \\
        --no-version-check \\
        ${args} \\
        ${config} \\
        ${extra_config} \\
        --filename multiqc_report.html \\
        .
    """

    stub:
    """
    mkdir multiqc_report_data
    touch multiqc_report.html multiqc_report_data/multiqc.log
    """
}
