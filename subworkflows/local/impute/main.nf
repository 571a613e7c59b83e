//
// Train SpaDiT on a slide and its reference, impute the genes, and score them against what was hidden
//

include { EVALUATE } from '../../../modules/local/evaluate/main'
include { IMPUTE   } from '../../../modules/local/impute/main'
include { TRAIN    } from '../../../modules/local/train/main'

workflow IMPUTE_SLIDES {
    take:
    ch_pairs // channel: [ meta, slide, reference ]
    ch_splits // channel: [ meta, split ]
    ch_resources // channel: [ meta, resources ], what each slide is expected to need
    earlier // path: results of an earlier run whose models are taken, or null
    start // path: a saved model that training starts from, or []

    main:
    ch_trained = ch_splits.map { meta, _split -> [meta, earlier ? trained_files("${earlier}/slides/${meta.id}", meta.id) : []] }
    ch_needs = ch_resources.map { meta, json -> [meta, needs(json)] }
    TRAIN(ch_pairs.join(ch_splits).join(ch_resources).join(ch_needs).join(ch_trained), start)
    IMPUTE(ch_pairs.join(ch_splits).join(TRAIN.out.model).join(TRAIN.out.training).join(ch_needs))
    EVALUATE(IMPUTE.out.imputed.join(ch_pairs).join(ch_splits))

    imputed    = IMPUTE.out.imputed
    training   = TRAIN.out.training
    curves     = TRAIN.out.curves
    metrics    = EVALUATE.out.metrics
    evaluation = EVALUATE.out.evaluation

    emit:
    imputed // channel: [ meta, h5ad ]
    training // channel: [ meta, json ]
    curves // channel: [ meta, csv ]
    metrics // channel: [ meta, csv ]
    evaluation // channel: [ meta, json ]
}

// What a slide's earlier training left; what isn't there is missed by TRAIN, for this slide alone
def trained_files(folder, id) {
    return [file("${folder}/model"), file("${folder}/facts/${id}.training.json"), file("${folder}/facts/${id}.curves.csv")].findAll { path -> path.exists() }
}

// What the tasks of a slide ask for, in GiB and minutes
def needs(json) {
    return new groovy.json.JsonSlurperClassic().parseText(json.text).subMap('train_gib', 'train_minutes', 'impute_gib', 'impute_minutes')
}
