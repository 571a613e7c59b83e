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

    main:
    ch_jobs = ch_plans.flatMap { meta, plan ->
        new groovy.json.JsonSlurperClassic()
            .parseText(plan.text)
            .jobs
            .groupBy { job -> job.what }
            .collectMany { _what, jobs -> jobs.collect { job -> [meta, job + [n_runs: jobs.size()]] } }
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
    ch_parts = ch_jobs
        .map { meta, job -> [[meta, job.what], job.n_runs] }
        .unique()
        .join(
            RUN_FLOOR.out.part
                .mix(RUN_METHOD.out.part, RUN_PEER.out.part)
                .map { meta, job, files -> [groupKey([meta, job.what], job.n_runs), files] }
                .groupTuple(remainder: true)
                .map { key, files -> [key.groupTarget, files] },
            remainder: true
        )
        .map { key, _n_runs, files -> [key[0], key[1], (files ?: []).flatten().sort { file -> file.name }] }
        .branch { _meta, what, _files ->
            benchmark: what == 'benchmark'
            robustness: what == 'robustness'
            ablation: what == 'ablation'
        }
    benchmark = ch_parts.benchmark.map { meta, _what, files -> [meta, files] }
    robustness = ch_parts.robustness.map { meta, _what, files -> [meta, files] }
    ablation = ch_parts.ablation.map { meta, _what, files -> [meta, files] }

    emit:
    benchmark // channel: [ meta, [ files ] ], the methods on the slide as it is
    robustness // channel: [ meta, [ files ] ], on thinned slides
    ablation // channel: [ meta, [ files ] ], variants of the network
}
