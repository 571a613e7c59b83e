"""SpaDiT: genes that a spatial transcriptomics slide did not measure, imputed from a single-cell reference."""

__version__ = "0.1.0"
