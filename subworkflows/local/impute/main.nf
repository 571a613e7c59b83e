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

    main:
    TRAIN(ch_pairs.join(ch_splits))
    IMPUTE(ch_pairs.join(ch_splits).join(TRAIN.out.model).join(TRAIN.out.training))
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
