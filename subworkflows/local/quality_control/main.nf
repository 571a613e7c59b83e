//
// Read slides and references, and keep what is good enough of each
//

include { READ as READ_REFERENCE } from '../../../modules/local/read/main'
include { READ as READ_SLIDE     } from '../../../modules/local/read/main'
include { QC as QC_REFERENCE     } from '../../../modules/local/qc/main'
include { QC as QC_SLIDE         } from '../../../modules/local/qc/main'

workflow QUALITY_CONTROL {
    take:
    ch_slides // channel: [ meta, st ]
    ch_references // channel: [ meta, sc ]

    main:
    QC_SLIDE(READ_SLIDE(ch_slides).h5ad)
    QC_REFERENCE(READ_REFERENCE(ch_references).h5ad)

    slides          = QC_SLIDE.out.h5ad
    references      = QC_REFERENCE.out.h5ad
    slide_facts     = QC_SLIDE.out.facts
    reference_facts = QC_REFERENCE.out.facts

    emit:
    slides // channel: [ meta, h5ad ]
    references // channel: [ meta, h5ad ]
    slide_facts // channel: [ meta, json ]
    reference_facts // channel: [ meta, json ]
}
