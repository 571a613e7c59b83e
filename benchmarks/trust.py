#!/usr/bin/env python3
"""What the facts of a gene say of its PCC, learned across slides: makes bin/spadit/trust_prior.json.

    python benchmarks/trust.py [FOLDER]

Every slide's genes are imputed as if hidden (inner folds, coarse condition). Facts and PCCs are standardised within the slide, and one
ridge regression joins the slides, each with the same weight. Printed is what it is worth on each slide when that slide is left out; these
left-out priors go to benchmarks/results/, where benchmarks/model.py takes them from: no slide is scored with a prior that has seen it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bin"))

import numpy as np  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402

from spadit import io, uncertainty  # noqa: E402
from spadit.api import FACTS, SpaDiT  # noqa: E402
from spadit.evaluation import subsample  # noqa: E402
from spadit.files import write_text  # noqa: E402

PENALTY = 30.0
RESULTS = ROOT / "benchmarks" / "results"


def standardised_facts(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(genes, facts) and (genes,), standardised over the slide's genes; genes that the reference hardly shows are left out."""
    slide, reference = io.read(folder / "st.h5ad", "slide"), io.read(folder / "sc.h5ad", "reference")
    slide, reference = slide[subsample(slide, 1500, 0)].copy(), reference[subsample(reference, 2000, 0)].copy()
    table = SpaDiT(seed=0, device="cpu", modes=()).fit(slide, reference).crossfitted_facts
    table = table[(reference[:, table.index].layers["counts"] > 0).sum(0).A1 >= 10]
    facts, pcc = table[list(FACTS)].to_numpy(), table["pcc"].to_numpy()
    return np.clip((facts - facts.mean(0)) / np.maximum(facts.std(0), 1e-9), -3, 3), (pcc - pcc.mean()) / pcc.std()


def regression(slides: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Coefficients of the facts, (facts,)."""
    left = sum(z.T @ z / len(z) for z, _ in slides) / len(slides)
    right = sum(z.T @ y / len(z) for z, y in slides) / len(slides)
    return np.linalg.solve(left + PENALTY / 1000 * np.eye(len(left)), right)


def write(path: Path, coefficients: np.ndarray, slides: list[str]) -> None:
    content = {"slides": slides, "coefficients": {name: round(float(c), 4) for name, c in zip(FACTS, coefficients, strict=True)}}
    write_text(path, json.dumps(content, indent=1) + "\n")


def main() -> int:
    default = ROOT.parent / "shared" / "data"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default if default.is_dir() else ROOT / "assets" / "demo"
    names = sorted(f.parent.name for f in folder.glob("*/st.h5ad"))
    slides = {name: standardised_facts(folder / name) for name in names}
    RESULTS.mkdir(exist_ok=True)
    print("| slide | genes | Spearman of expected and real PCC, this slide left out |\n|---|---|---|")
    for name in names:
        others = [n for n in names if n != name]
        coefficients = regression([slides[n] for n in others])
        z, y = slides[name]
        print(f"| {name} | {len(y):,} | {spearmanr(z @ coefficients, y)[0]:.2f} |", flush=True)
        write(RESULTS / f"trust_prior_without_{name}.json", coefficients, others)
    write(uncertainty.PRIOR, regression(list(slides.values())), names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
