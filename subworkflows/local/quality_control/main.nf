//
// Read slides and references, and keep what is good enough of each
//

include { PREPARE_REFERENCE      } from '../../../modules/local/prepare_reference/main'
include { READ as READ_REFERENCE } from '../../../modules/local/read/main'
include { READ as READ_SLIDE     } from '../../../modules/local/read/main'
include { QC as QC_REFERENCE     } from '../../../modules/local/qc/main'
include { QC as QC_SLIDE         } from '../../../modules/local/qc/main'

workflow QUALITY_CONTROL {
    take:
    ch_slides // channel: [ meta, st ]
    ch_references // channel: [ meta, sc ]
    cache // string: folder that keeps references for later runs, or null

    main:
    QC_SLIDE(READ_SLIDE(ch_slides).h5ad)
    if (cache) {
        PREPARE_REFERENCE(ch_references, made(cache))
        references = PREPARE_REFERENCE.out.h5ad
        reference_facts = PREPARE_REFERENCE.out.facts
    }
    else {
        QC_REFERENCE(READ_REFERENCE(ch_references).h5ad)
        references = QC_REFERENCE.out.h5ad
        reference_facts = QC_REFERENCE.out.facts
    }

    slides      = QC_SLIDE.out.h5ad
    slide_facts = QC_SLIDE.out.facts

    emit:
    slides // channel: [ meta, h5ad ]
    references // channel: [ meta, h5ad ]
    slide_facts // channel: [ meta, json ]
    reference_facts // channel: [ meta, json ]
}

// The folder's absolute path; made here, since a container is given existing folders only
def made(folder) {
    def path = file(folder.toString(), type: 'dir')
    if (!path.exists() && !path.mkdirs()) {
        error("Parameter --reference_cache: the folder '${folder}' can't be made. Give one that may be written to.")
    }
    return path.toAbsolutePath().normalize().toString()
}
