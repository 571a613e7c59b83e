process CHECK_INPUTS {
    label 'process_single'
    // Always anew: a sheet is quick to check
    cache false

    input:
    path(sheet, stageAs: 'sheet/*')
    val(params_json)
    path(schema_input)
    path(schema_params)
    path(predictions, stageAs: 'predictions/*')

    output:
    path("inputs.json"), emit: inputs
    path("params.json"), emit: params
    tuple val("${task.process}"), val('spadit'), eval('spadit_check_inputs.py --version'), topic: versions, emit: versions_spadit
    tuple val("${task.process}"), val('python'), eval('python3 -c "import platform; print(platform.python_version())"'), topic: versions, emit: versions_python

    script:
    def args = task.ext.args ?: ''
    def elsewhere = predictions ? "--predictions ${predictions}" : ''
    // The parameters are one line of JSON, so no value of theirs can end the here-document
    """
    cat > params.json <<'END_OF_PARAMS'
    ${params_json}
    END_OF_PARAMS
    spadit_check_inputs.py \\
        --id inputs \\
        --threads ${task.cpus} \\
        --input ${sheet} \\
        --params params.json \\
        --schema-input ${schema_input} \\
        --schema-params ${schema_params} \\
        ${elsewhere} ${args} \\
        --output inputs.json
    """

    // The sheet is really read: its slides are what the other stubs run with
    stub:
    def args = task.ext.args ?: ''
    def elsewhere = predictions ? "--predictions ${predictions}" : ''
    """
    cat > params.json <<'END_OF_PARAMS'
    ${params_json}
    END_OF_PARAMS
    spadit_check_inputs.py \\
        --id inputs \\
        --threads ${task.cpus} \\
        --input ${sheet} \\
        --params params.json \\
        --schema-input ${schema_input} \\
        --schema-params ${schema_params} \\
        ${elsewhere} ${args} \\
        --output inputs.json
    """
}
