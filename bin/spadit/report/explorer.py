"""What the slide's page draws in the browser: maps of every gene and of the spots, small enough to be mailed.

Values are whole numbers of one byte, each gene and kind of value with a range of its own, compressed gene by gene: the browser unpacks
a gene when it is shown. ``explorer.js`` reads what :func:`build` makes.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from spadit.plots.maps import spacing

MISSING = 255
"""Code of a value that is not there; 0 ... 254 are spread evenly over the range."""
MAX_PLACES = 10_000
"""More spots than this are averaged into places of a square grid."""
MAX_CHARACTERS = 20_000_000
"""Of all genes' values together; genes that don't fit are left out and counted on the page."""
MAX_GROUPS = 30
"""Columns of ``obs`` with more categories than this are no clusters."""
Read = Callable[[str, np.ndarray], np.ndarray]
"""``read(name, columns)``: 'X' or a layer of the imputed slide at these genes, spots × columns float32."""


def reader(imputed: AnnData) -> Read:
    """Values of an imputed slide in memory."""

    def read(name: str, columns: np.ndarray) -> np.ndarray:
        matrix = (imputed.X if name == "X" else imputed.layers[name])[:, columns]
        return np.asarray(matrix.toarray() if sp.issparse(matrix) else matrix, dtype=np.float32)

    return read


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[tuple[AnnData, Read]]:
    """The tables of an ``imputed.h5ad`` and a reader of its values, which stay in the file: there may be gigabytes of them."""
    import h5py
    from anndata.io import read_elem

    with h5py.File(path, "r") as file:
        tables = AnnData(obs=read_elem(file["obs"]), var=read_elem(file["var"]), uns=read_elem(file["uns"]))
        tables.obsm["spatial"] = read_elem(file["obsm/spatial"])

        def read(name: str, columns: np.ndarray) -> np.ndarray:
            dataset = file["X" if name == "X" else f"layers/{name}"]
            columns = np.asarray(columns)
            out = np.empty((dataset.shape[0], len(columns)), dtype=np.float32)
            for k, column in enumerate(columns):  # a gene's spots lie side by side in the file
                out[:, k] = dataset[:, column]
            return out

        yield tables, read


@dataclasses.dataclass
class Places:
    """Where values are drawn: spots, or the means of near spots where there are too many."""

    xy: np.ndarray
    """places × 2."""
    names: list[str]
    step: float
    """Typical distance of neighbours."""
    member: sp.csr_matrix | None = None
    """places × spots, rows sum to 1; None where a place is a spot."""
    codes: np.ndarray | None = None
    """Place of each spot."""

    def average(self, values: np.ndarray) -> np.ndarray:
        """Spots × genes to places × genes."""
        return values if self.member is None else np.asarray(self.member @ values, dtype=np.float32)

    def most(self, codes: np.ndarray) -> np.ndarray:
        """The most frequent group (0, 1, ...) of each place's spots."""
        if self.member is None:
            return codes
        n = int(codes.max()) + 1
        counts = np.zeros((len(self.xy), n), dtype=np.int32)
        np.add.at(counts, (self.codes, codes), 1)
        return counts.argmax(1)


def places_of(xy: np.ndarray, names: Sequence[str], limit: int = MAX_PLACES) -> Places:
    """The spots, or, where there are more than ``limit``, the squares of the finest grid with at most that many that hold a spot.

    Parameters
    ----------
    xy
        spots × 2, finite.
    """
    if len(xy) <= limit:
        return Places(xy, [str(name) for name in names], spacing(xy))
    low = xy.min(0)
    size = spacing(xy)
    while True:
        _, codes, counts = np.unique(np.floor((xy - low) / size).astype(np.int64), axis=0, return_inverse=True, return_counts=True)
        if len(counts) <= limit:
            break
        size *= max(1.02, np.sqrt(len(counts) / limit))
    codes = codes.ravel()
    member = sp.csr_matrix((1 / counts[codes], (codes, np.arange(len(xy)))), shape=(len(counts), len(xy)))
    return Places(member @ xy, [f"mean of {n:,} spots" if n > 1 else "one spot" for n in counts], size, member, codes)


def quantise(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Values as bytes and their range: value = low + code / 254 · (high - low), :data:`MISSING` where there is none."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.full(values.shape, MISSING, dtype=np.uint8), 0.0, 0.0
    low, high = float(values[finite].min()), float(values[finite].max())
    codes = np.full(values.shape, MISSING, dtype=np.uint8)
    codes[finite] = np.rint((values[finite] - low) * (254 / (high - low) if high > low else 0))
    return codes, low, high


def _short(value: float, digits: int = 5) -> float | None:
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None


def _constant_width(x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float | None:
    """Half the interval's width if it is one number for the gene (lower then stops at 0), else None."""
    half = float(np.median(upper - x))
    tolerance = 1e-3 * max(1.0, abs(half))
    same = np.allclose(upper - x, half, atol=tolerance) and np.allclose(lower, np.maximum(x - half, 0), atol=tolerance)
    return half if same else None


def _pack(parts: list[np.ndarray]) -> str:
    return base64.b64encode(zlib.compress(np.concatenate(parts).tobytes(), 9)).decode()


def build(
    tables: AnnData,
    read: Read,
    order: Sequence[str],
    slide: AnnData | None = None,
    limit: int = MAX_PLACES,
    characters: int = MAX_CHARACTERS,
) -> tuple[dict, list[str]]:
    """All that the maps need.

    Parameters
    ----------
    tables
        ``var`` with measured, reliability and reliability_class; ``obsm['spatial']``.
    read
        Reads 'X', 'observed', 'lower' and 'upper'.
    order
        Genes, the most wanted first: those at the end are left out where the page would grow too large.
    slide
        Raw counts of the same spots in ``layers['counts']``, for the maps of spots; None leaves them out.

    Returns
    -------
    facts
        For JSON: n_spots, places (x, y, names, step), binned, genes (name, ranges), left_out, half widths, spot maps.
    values
        One base64 text per gene: zlib of the imputed bytes, then the lower end's (where the width differs between spots), then the
        measured ones (where measured), each one byte per place.
    """
    xy = np.asarray(tables.obsm["spatial"], dtype=float)[:, :2]
    places = places_of(xy, tables.obs_names, limit)
    n_layers = {"lower", "upper"}
    genes, values, used = [], [], 0
    position = tables.var_names.get_indexer(list(order))
    measured = tables.var["measured"].to_numpy(dtype=bool)
    for start in range(0, len(order), 64):
        columns = position[start : start + 64]
        x, lower, upper = read("X", columns), *(read(name, columns) for name in sorted(n_layers))
        seen = read("observed", columns) if measured[columns].any() else None
        for k, column in enumerate(columns):
            half = _constant_width(x[:, k], lower[:, k], upper[:, k])
            parts = [places.average(x[:, k])]
            if half is None:
                parts.append(places.average(lower[:, k]))
            if measured[column]:
                parts.append(places.average(seen[:, k]))
            quantised = [quantise(part) for part in parts]
            packed = _pack([codes for codes, _, _ in quantised])
            used += len(packed) + 1
            if used > characters and genes:
                break
            genes.append(
                {
                    "name": str(tables.var_names[column]),
                    "measured": bool(measured[column]),
                    "half": None if half is None else _short(half),
                    "ranges": [[_short(low, 7), _short(high, 7)] for _, low, high in quantised],
                    "scale": [_short(v) for v in _scale(parts[0], parts[-1] if measured[column] else None)],
                }
            )
            values.append(packed)
        if used > characters:
            break
    span = float((places.xy.max(0) - places.xy.min(0)).max()) or 1.0
    digits = int(np.clip(4 - np.floor(np.log10(span)), 0, 9))
    facts = {
        "n_spots": tables.n_obs,
        "binned": places.member is not None,
        "names": places.names,
        "x": np.round(places.xy[:, 0], digits).tolist(),
        "y": np.round(places.xy[:, 1], digits).tolist(),
        "step": _short(places.step),
        "genes": genes,
        "left_out": len(tables.var) - len(genes),
        "spots": spot_maps(slide, places) if slide is not None else [],
    }
    return facts, values


def _scale(imputed: np.ndarray, truth: np.ndarray | None) -> tuple[float, float]:
    """One colour scale for a gene's maps: 0 (or less) to the 99th percentile, as the figures have it."""
    shown = [v[np.isfinite(v)] for v in (imputed, truth) if v is not None]
    shown = [v for v in shown if len(v)]
    if not shown:
        return 0.0, 1.0
    low, high = min(0.0, *(float(np.quantile(v, 0.01)) for v in shown)), max(float(np.quantile(v, 0.99)) for v in shown)
    high = high if high > low else max(float(v.max()) for v in shown)
    return low, (high if high > low else low + 1.0)


# --- maps of spots


def spot_maps(slide: AnnData, places: Places) -> list[dict]:
    """Maps of counts, genes, mitochondrial share, clusters and the slide's own groups.

    Each has title, note, kind ('log', 'linear', 'share' or 'group'), a value per place and, for groups, their labels.
    """
    from spadit.qc import mitochondrial

    counts = sp.csr_matrix(slide.layers["counts"])
    totals = np.asarray(counts.sum(1), dtype=float).ravel()
    mito = mitochondrial(slide.var_names)
    kept = [
        ("total counts", "log", totals, "Total counts of each spot after the filters, on a log scale."),
        ("genes detected", "linear", np.diff(counts.indptr).astype(float), "Genes with at least one count."),
    ]
    if mito.any():
        share = np.divide(np.asarray(counts[:, mito].sum(1)).ravel(), totals, out=np.full(len(totals), np.nan), where=totals > 0)
        kept.append(("mitochondrial share", "share", share, "Share of counts in mitochondrial genes."))
    maps = []
    for title, kind, values, note in kept:
        shown = places.average(values)
        low, high = np.nanquantile(shown, (0.005, 0.995)) if np.isfinite(shown).any() else (0.0, 1.0)
        digits = [_short(v, 4) for v in shown]
        maps.append({"title": title, "kind": kind, "note": note, "values": digits, "low": _short(low), "high": _short(high)})
    for title, labels, note in groups(slide):
        names, codes = np.unique(labels.astype(str), return_inverse=True)
        names, codes = _by_size(names, codes) if title == CLUSTERS else (names, codes)
        maps.append(
            {
                "title": title,
                "kind": "group",
                "note": note,
                "values": places.most(codes.ravel()).tolist(),
                "labels": [str(n) for n in names],
            }
        )
    return maps


CLUSTERS = "clusters of spots"


def _by_size(names: np.ndarray, codes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Clusters named 1, 2, ... from the largest to the smallest."""
    order = np.argsort(-np.bincount(codes.ravel(), minlength=len(names)), kind="stable")
    rank = np.empty(len(order), dtype=int)
    rank[order] = np.arange(len(order))
    return [str(k + 1) for k in range(len(order))], rank[codes.ravel()]


def groups(slide: AnnData) -> Iterator[tuple[str, np.ndarray, str]]:
    """Groups of spots: at most two columns of text of the slide's own ``obs``, and clusters of the measured genes."""
    found = 0
    for column in slide.obs:
        values = slide.obs[column]
        text = isinstance(values.dtype, pd.CategoricalDtype) or values.dtype == object
        if text and 2 <= values.nunique() <= MAX_GROUPS and found < 2:
            found += 1
            yield str(column), values.astype(str).to_numpy(), "As given in the slide's obs."
    labels = clusters(slide)
    if labels is not None:
        n = len(set(labels.tolist()))
        yield (
            CLUSTERS,
            labels,
            f"Spots with like measured genes: k-means in the first principal components of the log-normalised counts; of 3 to 10 clusters, "
            f"{n} are set apart best (silhouette).",
        )


def clusters(slide: AnnData, seed: int = 0) -> np.ndarray | None:
    """k-means (scikit-learn) of spots in at most 15 principal components of the log-normalised, standardised measured genes.

    Of 3 to 10 clusters the number with the best silhouette of at most 1,500 spots is taken. None with fewer than 30 spots or 3 genes.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    from spadit.preprocess import highly_variable, log_normalise, zscore
    from spadit.reference import components_of

    counts = sp.csr_matrix(slide.layers["counts"])
    if slide.n_obs < 30 or slide.n_vars < 3:
        return None
    values = log_normalise(counts)[0].tocsc()
    if slide.n_vars > 1000:
        values = values[:, np.flatnonzero(highly_variable(counts, 1000))]
    points = components_of(zscore(values), 15, seed)[0]
    if np.ptp(points) == 0:
        return None
    drawn = np.random.default_rng(seed).permutation(len(points))[:20_000]
    looked = drawn[:1500]
    best, best_score = None, -np.inf
    for k in range(3, 11):
        fitted = KMeans(k, n_init=2, random_state=seed).fit(points[drawn])
        labels = fitted.predict(points[looked])
        if len(set(labels.tolist())) < 2:
            continue
        score = silhouette_score(points[looked], labels)
        if score > best_score:
            best, best_score = fitted, score
    return None if best is None else best.predict(points)


def as_json(facts: dict) -> str:
    """JSON that can stand in a page: no character of it can end the element that it is in."""
    text = json.dumps(facts, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return (
        text.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )
