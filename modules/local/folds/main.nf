process FOLDS {
    tag "${meta.id}"
    label 'process_single'
    publishDir { "${params.outdir}/benchmark/${meta.id}" }, mode: params.publish_dir_mode, overwrite: 'deep', pattern: '{folds,*.failure}.json'

    input:
    tuple val(meta), path(slide), path(reference), path(folds, stageAs: 'given/*')

    output:
    tuple val(meta), path("folds.json"), optional: true, emit: folds
    tuple val(meta), path("plan.json"), optional: true, emit: plan
    tuple val(meta), path("*.failure.json"), optional: true, topic: facts, emit: failure
    tuple val("${task.process}"), val('spadit'), eval('spadit_folds.py --version'), topic: versions, emit: versions_spadit

    script:
    def args = task.ext.args ?: ''
    def given = folds ? "--folds-file ${folds}" : ''
    """
    spadit_folds.py \\
        --id '${meta.id}' \\
        --role slide \\
        --failure '${meta.id}.folds.failure.json' \\
        --threads ${task.cpus} \\
        --slide ${slide} \\
        --reference ${reference} \\
        ${given} ${args} \\
        --output folds.json \\
        --plan plan.json
    """

    // The plan is what the runs are made from, so it holds some
    stub:
    """
    touch folds.json
    python3 - <<'END_OF_PLAN'
    import json
    runs = [("benchmark", "ridge", "floor", "core"), ("benchmark", "SpaDiT", "method", "core"), ("benchmark", "Tangram", "method", "peers"),
            ("robustness", "ridge", "floor", "core"), ("ablation", "SpaDiT", "method", "core")]
    jobs = [
        {"name": f"${meta.id}.{what}.{method}.fold{fold}", "what": what, "method": method, "kind": kind, "fold": fold,
         "rate": 0.5 if what == "robustness" else 0.0, "seed": 0, "image": image, "minutes": 20, "memory_gib": 1}
        for what, method, kind, image in runs for fold in (0, 1)
    ]
    open("plan.json", "w").write(json.dumps({"jobs": jobs}))
    END_OF_PLAN
    """
}
