"""Reports: one self-contained page per slide (:mod:`slide`), the sections of the cohort's MultiQC report (:mod:`cohort`)."""
