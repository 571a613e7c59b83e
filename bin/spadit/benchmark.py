"""The benchmark: every method imputes the same hidden genes of a slide, fold by fold, and all are scored and ranked alike.

The steps are folds (:class:`Folds`, :func:`make_plan`), one run per method and fold (:func:`run_method`), and tables of what came of them
(:func:`collect`, then :func:`rank`, :func:`robustness` or :func:`ablation`). A method that failed in any fold gets no numbers: it is marked,
with its reason, and the rest is ranked.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from spadit import metrics
from spadit.contracts import Benchmark, BenchmarkPlan, MethodRun
from spadit.errors import InputError, MethodError, SpaditError
from spadit.evaluation import MAX_CELLS, NOT_PREDICTABLE, difference, measured_values, subsample, summarize
from spadit.files import write_text
from spadit.inputs import closest
from spadit.methods import METHODS, Method, visible_part
from spadit.methods.spadit import VARIANTS, model_method

MEASURES = ["pcc", "spearman", "ssim", "rmse", "js"]

METRICS_COLUMNS = ["gene", "method", "fold", *MEASURES, "moran_truth", "moran_imputed"]
"""Of ``metrics.csv``: one row per gene and method, methods in the order of ``ranking.csv``."""

RANKING_COLUMNS = [
    "method", "kind", "status", "n_genes", "median_pcc", "low", "high", "mean_pcc", "median_spearman", "mean_spearman", "median_ssim",
    "mean_ssim", "median_rmse", "mean_rmse", "median_js", "mean_js", "accuracy_score", "robustness_score", "difference",
    "difference_low", "difference_high", "p", "seconds", "peak_gib", "version", "licence", "citation",
]  # fmt: skip
"""Of ``ranking.csv``, the best ranked method first, then controls and ceiling, then what failed. ``low`` and ``high``: 95 % bootstrap
interval of the median PCC. ``difference``: PCC less the best method's, mean over genes, with its interval; ``p``: Wilcoxon's, paired per gene,
corrected for the number of comparisons (Holm). ``seconds``: all folds; ``peak_gib``: the largest fold."""

ROBUSTNESS_COLUMNS = [
    "method", "kind", "rate", "status", "n_genes", "median_pcc", "low", "high", "mean_pcc", "robustness_score", "robustness_score_both",
]  # fmt: skip
"""Of ``robustness.csv``: one row per method and rate. ``rate``: share of the counts that was removed, 0 is the slide as it is.
``robustness_score``: share of genes with PCC > 0.5; ``robustness_score_both``: at this rate and on the slide as it is (Figure 6)."""

ROBUSTNESS_METRICS_COLUMNS = ["gene", "method", "rate", "fold", *MEASURES]
"""Of ``robustness_metrics.csv``: one row per gene, method and rate."""

ABLATION_COLUMNS = [
    "group", "variant", "description", "status", "n_seeds", "n_genes", "accuracy_score_mean", "accuracy_score_sd", "median_pcc_mean",
    "median_pcc_sd", "median_spearman_mean", "median_spearman_sd", "median_ssim_mean", "median_ssim_sd", "median_rmse_mean",
    "median_rmse_sd", "median_js_mean", "median_js_sd", "seconds",
]  # fmt: skip
"""Of ``ablation.csv``: one row per group ('backbone': Table 3, 'parts': Table 4) and variant. The accuracy score ranks the variants of the
group; mean and SD (n − 1) are over seeds. ``seconds``: all folds and seeds."""

ABLATION_METRICS_COLUMNS = ["gene", "method", "seed", "fold", *MEASURES]
"""Of ``ablation_metrics.csv``: one row per gene, variant (``method``) and seed."""
