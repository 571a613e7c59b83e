"""How far an imputed gene can be trusted: intervals, the expected correlation (reliability), and a class in plain words.

All of it is learned from the visible genes, each imputed as if hidden. A hidden gene's own values play no part.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy.stats import norm
from sklearn.linear_model import RidgeCV

from spadit.metrics import pcc

CLASSES = ("reliable", "use with care", "do not use")
RELIABLE, USABLE = 0.30, 0.15
LEVEL = 0.90
MIN_GENES = 20
"""Fewer visible genes than this can't teach a regression of their own: what other slides taught is used as it is."""
PRIOR = Path(__file__).with_name("trust_prior.json")
"""What the facts of a gene say of its PCC on other slides (benchmarks/trust.py makes it)."""
N_FOLDS = 10

NOTABLE = 0.01
"""A fact is named when it adds to the expected PCC, or takes from it, at least this much."""
FEW = 5.0
"""Percent of the reference's cells."""
ASPECTS = (
    (("reference", "detection"), "its level in the reference speaks for it ({0})", "its level in the reference speaks against it ({0})"),
    (("agreement",), "simple maps of it agree more than most", "simple maps of it agree less than most"),
    (
        ("highest correlation", "top 5"),
        "in the reference visible genes follow it closely",
        "in the reference visible genes follow it loosely",
    ),
    (("SD of",), "its imputed map has more contrast than most", "its imputed map has less contrast than most"),
    (("Moran",), "its imputed map has more spatial order than most", "its imputed map has less spatial order than most"),
)
"""How the names of facts that belong together begin, and what is said where they add to the expected PCC, or take from it."""


def load_prior(names: tuple[str, ...]) -> np.ndarray:
    """The prior's coefficients for these facts, (facts,); 0 for a fact that it doesn't know."""
    known = json.loads(PRIOR.read_text(encoding="utf-8"))["coefficients"]
    return np.array([float(known.get(name, 0.0)) for name in names])


class Trust:
    """Learned from visible genes that were imputed as if hidden.

    The expected PCC of a gene is linear in facts that need no measurement of it (standardised over the visible genes): the slide's mean
    plus what these facts meant on other slides, corrected by what they mean on this one (ridge, strength by leave-one-out).

    The 90 % interval of a gene is its value ± q · sd · √(2 (1 - expected PCC)), with sd the gene's expected SD: a map of the gene's own
    spread that correlates r with the truth errs by sd √(2 (1 - r)). q is split-conformal: 90 % of all (visible gene, spot) pairs lie
    within. Coverage is marginal: over spots and genes together, not for each gene alone.
    """

    def __init__(
        self, centre: np.ndarray, spread: np.ndarray, coefficients: np.ndarray, mean: float, error: float, quantile: float, rms: float
    ):
        self.centre, self.spread, self.coefficients = centre, spread, coefficients
        self.mean, self.error, self.quantile, self.rms = mean, error, quantile, rms

    @classmethod
    def fit(cls, facts: np.ndarray, truth: np.ndarray, values: np.ndarray, sd: np.ndarray, prior: np.ndarray) -> Trust:
        """From visible genes.

        Parameters
        ----------
        facts
            (genes, facts).
        truth, values
            Measured, and imputed as if hidden: (spots, genes), log-normalised scale.
        sd
            Expected SD of each gene, (genes,), as used for ``values``.
        prior
            (facts,): see :func:`load_prior`.
        """
        scores = pcc(truth, values)
        centre, spread = facts.mean(0), np.maximum(facts.std(0), 1e-9)
        z = np.clip((facts - centre) / spread, -3, 3)
        mean, coefficients = _regress(z, scores, prior)
        n = len(scores)
        expected = np.full(n, mean)
        for k in range(min(N_FOLDS, n)):
            own = np.arange(n) % N_FOLDS == k
            if not own.all():
                part_mean, part = _regress(z[~own], scores[~own], prior)
                expected[own] = part_mean + z[own] @ part
        # very few genes or spots can look exact by chance
        least = 1 / len(truth) + (1 / n if n < MIN_GENES else 0)
        error = float(np.sqrt(max(((scores - expected) ** 2).mean(), least)))
        relative = np.abs(values - truth) / _error_scale(sd, expected)
        quantile = float(np.quantile(relative, min(1.0, LEVEL * (1 + 1 / relative.size))))
        return cls(centre, spread, coefficients, mean, error, quantile, float(np.sqrt((relative.astype(np.float64) ** 2).mean())))

    def expected_pcc(self, facts: np.ndarray) -> np.ndarray:
        """Reliability: the PCC to be expected of each gene, (genes,), within -1 ... 1."""
        z = np.clip((facts - self.centre) / self.spread, -3, 3)
        return np.clip(self.mean + z @ self.coefficients, -1, 1)

    def reasons(self, facts: np.ndarray, names: tuple[str, ...]) -> list[str]:
        """Why a gene's expected PCC is what it is, in plain words: (genes,).

        The regression is linear, so each fact adds to the expected PCC or takes from it. Facts that speak of the same thing are summed
        (:data:`ASPECTS`). A gene expected below the reliable ones is told what takes most from it, others what adds most.

        Parameters
        ----------
        facts
            (genes, facts), in the order of ``names``.
        """
        z = np.clip((facts - self.centre) / self.spread, -3, 3)
        column = {name: k for k, name in enumerate(names)}
        sums = np.zeros((len(facts), len(ASPECTS)))
        for k, (aspect, _, _) in enumerate(ASPECTS):
            members = [column[name] for name in names if name.startswith(aspect)]
            sums[:, k] = (z[:, members] * self.coefficients[members]).sum(1)
        expected, low = self.expected_pcc(facts), CLASSES[0]
        return [
            self._reason(expected[i], row, facts[i], column, c != low)
            for i, (c, row) in enumerate(zip(self.classes(expected), sums, strict=True))
        ]

    def _reason(self, expected: float, sums: np.ndarray, facts: np.ndarray, column: dict[str, int], wary: bool) -> str:
        said = []
        if wary and expected >= RELIABLE:
            said.append(f"such expectations err by ± {self.error:.2f} on this slide")
        for k in np.argsort(sums if wary else -sums, kind="stable")[:2]:
            if abs(sums[k]) < NOTABLE or (sums[k] > 0) == wary:
                continue
            detected = 100 * facts[column["detection"]] if "detection" in column else 0
            percent = f"{detected:.2g} %" if detected < 10 else f"{detected:.0f} %"
            text = ASPECTS[k][2 if wary else 1].format(f"{percent} of its cells express it")
            said.append(f"few of the reference's cells express it ({percent})" if k == 0 and wary and detected < FEW else text)
        if said:
            return "; ".join(said[:2])
        mean = f"{self.mean:.2f}".replace("-", "−")
        return f"nothing special about it: hidden genes of this slide reach a PCC of {mean} on average"

    def classes(self, expected: np.ndarray) -> list[str]:
        """'reliable': a PCC of at least 0.3 with a probability of 80 % or more, given the regression's own errors; 'do not use': a PCC of
        at least 0.15 is less likely than not."""
        error = max(self.error, 1e-6)
        good, usable = norm.sf((RELIABLE - expected) / error), norm.sf((USABLE - expected) / error)
        return np.where(good >= 0.8, CLASSES[0], np.where(usable < 0.5, CLASSES[2], CLASSES[1])).tolist()

    def widths(self, expected: np.ndarray, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Half the width of the 90 % interval, and the root mean square error to be expected: (genes,) each."""
        scale = _error_scale(sd, expected)
        return self.quantile * scale, self.rms * scale


def _error_scale(sd: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return sd * np.sqrt(2 * (1 - np.clip(expected, -0.5, 0.95)))


def _regress(z: np.ndarray, scores: np.ndarray, prior: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean and coefficients for standardised facts. The prior is in units of the scores' SD."""
    mean = float(scores.mean())
    start = prior * float(scores.std())
    if len(scores) < MIN_GENES:
        return mean, start
    rest = scores - mean - z @ start
    model = RidgeCV(alphas=np.logspace(0, 5, 16)).fit(z, rest)
    return mean + float(model.intercept_), start + model.coef_
