process SUMMARIZE {
    tag "cohort"
    label 'process_single'
    // By content: inputs.json is written anew in every run
    cache 'deep'

    input:
    path(inputs)
    path(params_json)
    path(versions)
    path(facts, stageAs: 'facts/*')

    output:
    path("mqc/*_mqc.*"), emit: multiqc
    path("mqc/slides.json"), emit: slides
    path("mqc/slides.csv"), emit: table
    path("mqc/citations.bib"), emit: citations
    tuple val("${task.process}"), val('spadit'), eval('spadit_summarize.py --version'), emit: versions_spadit

    script:
    def args = task.ext.args ?: ''
    """
    mkdir -p facts
    spadit_summarize.py \\
        --id cohort \\
        --threads ${task.cpus} \\
        --inputs ${inputs} \\
        --facts facts \\
        --params ${params_json} \\
        --versions ${versions} \\
        ${args} \\
        --outdir mqc
    """

    stub:
    """
    mkdir mqc
    touch mqc/slides_mqc.json mqc/slides.csv mqc/citations.bib
    echo '[]' > mqc/slides.json
    """
}
