//
// The runs of a benchmark, each a task of its own: what fails or is killed leaves a gap, and the others go on
//

include { RUN_METHOD as RUN_FLOOR } from '../../../modules/local/run_method/main'
include { RUN_METHOD as RUN_PEER  } from '../../../modules/local/run_method/main'
include { RUN_METHOD              } from '../../../modules/local/run_method/main'

workflow RUN_METHODS {
    take:
    ch_pairs // channel: [ meta, slide, reference ]
    ch_folds // channel: [ meta, folds ]
    ch_plans // channel: [ meta, plan ]
    what // string: which runs of the plan: 'benchmark', 'robustness' or 'ablation'

    main:
    ch_jobs = ch_plans.flatMap { meta, plan ->
        def jobs = new groovy.json.JsonSlurperClassic().parseText(plan.text).jobs.findAll { job -> job.what == what }
        jobs.collect { job -> [meta, job + [n_runs: jobs.size()]] }
    }
    ch_runs = ch_jobs
        .combine(ch_pairs.join(ch_folds), by: 0)
        .branch { _meta, job, _slide, _reference, _folds ->
            peer: job.image == 'peers'
            method: job.kind == 'method'
            floor: true
        }
    RUN_FLOOR(ch_runs.floor)
    RUN_METHOD(ch_runs.method)
    RUN_PEER(ch_runs.peer)

    // A slide goes on when its last run has ended; one with gaps, or with nothing at all, when the last slide's has.
    // Sorted, since the order in which tasks end must not keep -resume from working
    parts = ch_folds
        .join(
            RUN_FLOOR.out.part
                .mix(RUN_METHOD.out.part, RUN_PEER.out.part)
                .map { meta, job, files -> [groupKey(meta, job.n_runs), files] }
                .groupTuple(remainder: true)
                .map { key, files -> [key.groupTarget, files] },
            remainder: true
        )
        .map { meta, _folds, files -> [meta, (files ?: []).flatten().sort { file -> file.name }] }

    emit:
    parts // channel: [ meta, [ files ] ]
}
