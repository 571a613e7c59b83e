"""The coarse condition: what simple maps of a gene, made from the visible genes and the reference, say together.

A *map* is a first guess of a gene's values over the spots. Several are made (:data:`MAPS`), none of which needs the gene's own spatial
values. For visible genes they are made as if the gene were hidden (in inner folds), so that what is learned from visible genes holds for
hidden ones. :class:`Stack` learns how much to trust each map, from the visible genes alone.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.linalg import eigsh
from scipy.spatial import cKDTree

from spadit.metrics import pcc
from spadit.preprocess import averaging, log_normalise, unit_rows, zscore
from spadit.reference import components_of, like_rows

N_SPECTRAL = 8
N_NEAREST = 50
N_SMOOTH = 8
N_LIKE = 30
N_LIKE_COMPONENTS = 15
PSEUDOCOUNT = 50.0
MIXTURE_ROUNDS = (4, 10)
"""Of fitting mixtures: how often the genes' factors are set, and steps of the shares in between. Few: the early end keeps shares smooth."""
RBF_WIDTH = 0.7
RBF_PENALTY = 0.3
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
CLIP = 10.0

VIEWS = ("cells", "averaged")
LINEAR = tuple(f"{name}, {view}" for view in VIEWS for name in ("ridge", "rbf", "correlation"))
SPECTRAL = tuple(f"component {i + 1}" for i in range(N_SPECTRAL))
NEAREST = tuple(f"nearest, {view}" for view in VIEWS)
LIKE = tuple(f"{name}, like spots" for name in LINEAR)
MAPS = (*LINEAR, *SPECTRAL, "mean", "smoothed ridge", *NEAREST, "total", *LIKE, "mixture")
"""ridge: gene-wise kernel ridge on the reference's gene correlations; rbf: the same with a Gaussian kernel on their distances;
correlation: mean of the visible genes weighted by max(0, correlation); component i: the slide's i-th principal component times what the
reference correlations say of the gene's share in it; mean: mean of the visible genes; smoothed ridge: ridge averaged over a spot and its
8 nearest; nearest: mean of the gene over the 50 cells most like the spot; total: the spot's total (log). The first three and nearest are
made from both views of the reference. like spots: the same from the average of the 30 spots most like the spot, wherever they lie; mixture:
the gene in the mixture of the reference's clusters that explains this average best."""
N_LINEAR = len(LINEAR) + N_SPECTRAL + 1
TOTAL = MAPS.index("total")


def neighbour_mean(coordinates: np.ndarray, k: int = N_SMOOTH) -> sp.csr_matrix:
    """spots × spots: each row averages over the spot and its k nearest."""
    n = len(coordinates)
    k = min(k + 1, n)
    _, nearest = cKDTree(coordinates).query(coordinates, k)
    return averaging(nearest.reshape(n, k), n)


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of z-scored columns: (genes of a) × (genes of b)."""
    return (a.T @ b / len(a)).astype(np.float64)


@dataclasses.dataclass
class Averaged:
    """``weights @ values``, kept as its two factors: values over many spots are never held for it.

    Parameters
    ----------
    weights
        (spots, pool), sparse.
    values
        (pool, genes).
    """

    weights: sp.csr_matrix
    values: np.ndarray

    def __matmul__(self, other: np.ndarray) -> np.ndarray:
        return self.weights @ (self.values @ other)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Some of the spots, as an array."""
        return self.weights[rows] @ self.values

    @property
    def shape(self) -> tuple[int, int]:
        return self.weights.shape[0], self.values.shape[1]


@dataclasses.dataclass
class Spots:
    """The slide's side of the maps.

    Parameters
    ----------
    y
        Visible genes, log-normalised over themselves and z-scored, (spots, visible genes).
    smooth
        The same, averaged over neighbouring spots.
    total
        log1p of the visible total, z-scored, (spots,).
    nearest
        Per view of the reference (spots, cells): the weights that average over the most similar cells.
    like
        As y, from the average of the spots most like each.
    shares
        Of the reference's clusters in each spot, (spots, clusters), rows summing to 1.
    usual
        The shares' mean over all spots, (clusters,): what the map 'mixture' is seen against.
    typical
        The total that values are scaled to.
    """

    y: np.ndarray
    smooth: np.ndarray | Averaged
    total: np.ndarray
    nearest: list[sp.csr_matrix]
    like: np.ndarray | Averaged
    shares: np.ndarray
    usual: np.ndarray
    typical: float

    @classmethod
    def of(
        cls,
        counts: sp.csr_matrix,
        neighbours: sp.csr_matrix,
        views: list[np.ndarray],
        rates: np.ndarray,
        pool: np.ndarray | slice = slice(None),
        rows: np.ndarray | slice = slice(None),
        block: int = 2048,
    ) -> Spots:
        """From counts (spots × visible genes), the neighbour average (rows × spots), the reference's visible genes per view and cluster.

        Parameters
        ----------
        pool
            The spots among which like ones are sought.
        rows
            The spots that are wanted; the others only take part as neighbours.
        """
        values, totals, typical = log_normalise(counts)
        y = zscore(values, CLIP)
        inside, near = components_of(y[pool], N_LIKE_COMPONENTS, 0, y[rows])
        average = like_rows(near, inside, N_LIKE)
        expression = average @ values[pool].toarray()
        shares = mixture(np.expm1(expression, out=expression), rates, block)  # of logarithms: one odd spot doesn't carry it away
        del expression
        like = Averaged(average, y[pool])  # not z-scored again: a gene that is mostly noise shrinks, and counts for less
        smooth = Averaged(neighbours, y)
        own = y[rows]
        if len(own) <= len(like.values):  # as while learning: made once they are quicker
            smooth, like = smooth[:], like[:]
        total = standardised_total(totals[rows])
        return cls(own, smooth, total, [nearest_cells(own, z, block) for z in views], like, shares, shares.mean(0), typical)

    def take(self, rows: np.ndarray | slice) -> Spots:
        """Some of the spots."""
        nearest = [part[rows] for part in self.nearest]
        own = (self.y[rows], self.smooth[rows], self.total[rows], nearest, self.like[rows], self.shares[rows])
        return Spots(*own, self.usual, self.typical)


def cluster_rates(counts: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Each gene's counts per count of the visible genes, (clusters, genes) float32, from the clusters' counts of both. 50 counts of the
    whole reference's profile are added to each cluster, so that one of few cells says little of its own."""
    totals = visible.sum(1, keepdims=True)
    profile = counts.sum(0) / max(totals.sum(), 1e-9)
    return ((counts + PSEUDOCOUNT * profile) / (totals + PSEUDOCOUNT)).astype(np.float32)


def mixture(expression: np.ndarray, rates: np.ndarray, block: int = 2048) -> np.ndarray:
    """The shares of the reference's clusters that explain each spot best, (spots, clusters) float32, rows summing to 1.

    Shares are fitted by multiplicative steps that lower the Kullback-Leibler divergence (Lee & Seung 2001), i.e. for Poisson counts.
    What a platform sees of a gene differs from the reference's by a factor, which is set so that its sum over the spots is right.

    Parameters
    ----------
    expression
        (spots, visible genes), not negative, linear.
    rates
        (clusters, visible genes), :func:`cluster_rates`.
    """
    n_rounds, n_steps = MIXTURE_ROUNDS
    shares = np.repeat(expression.sum(1, keepdims=True, dtype=np.float32) / len(rates), len(rates), axis=1)
    measured = expression.sum(0, dtype=np.float64) + 1
    for _ in range(n_rounds):
        factor = measured / (shares.sum(0, dtype=np.float64) @ rates + 1)
        own = (rates * factor).astype(np.float32)
        sums = np.maximum(own.sum(1), 1e-12)
        for i in range(0, len(shares), block):
            part, seen = shares[i : i + block], expression[i : i + block]
            for _ in range(n_steps):
                part *= ((seen / (part @ own + 1e-6)) @ own.T) / sums
    total = shares.sum(1, keepdims=True)
    return np.where(total > 0, shares / np.where(total > 0, total, 1), 1 / len(rates)).astype(np.float32)


def standardised_total(totals: np.ndarray) -> np.ndarray:
    """log1p of the spots' totals, z-scored, (spots,) float32."""
    total = np.log1p(totals)
    spread = total.std()
    return ((total - total.mean()) / (spread if spread > 1e-9 else 1)).astype(np.float32)


def nearest_cells(y: np.ndarray, z: np.ndarray, block: int = 2048) -> sp.csr_matrix:
    """(spots, cells): each row averages over the 50 cells most like the spot (cosine over the visible genes)."""
    cells = unit_rows(z).T
    k = min(N_NEAREST, z.shape[0])
    chosen = [
        np.argpartition(-(unit_rows(y[i : i + block]) @ cells), k - 1, axis=1)[:, :k].astype(np.int32) for i in range(0, len(y), block)
    ]
    return averaging(np.concatenate(chosen), z.shape[0])


@dataclasses.dataclass
class Targets:
    """The genes' side of the maps: whose they are, seen from the reference.

    Parameters
    ----------
    linear
        (linear maps, visible genes, genes): such a map is ``y @ linear[i]``.
    cells
        Per view, z-scored (cells, genes).
    rates
        Per cluster of the reference, (clusters, genes).
    strongest
        Highest and mean top-5 absolute correlation with a visible gene, (genes, 2).
    """

    linear: np.ndarray
    cells: list[np.ndarray]
    rates: np.ndarray
    strongest: np.ndarray

    def take(self, columns: np.ndarray | slice) -> Targets:
        """Some of the genes."""
        parts = (self.linear[:, :, columns], [part[:, columns] for part in self.cells], self.rates[:, columns])
        return Targets(*parts, self.strongest[columns])


class Mapper:
    """Makes :class:`Targets` of any genes, for one set of visible genes.

    Parameters
    ----------
    y
        (spots, visible genes), z-scored; for the slide's principal components.
    correlations
        Per view: visible × visible genes in the reference.
    penalty
        λ of ridge, see :func:`choose_penalty`.
    """

    def __init__(self, y: np.ndarray, correlations: list[np.ndarray], penalty: float):
        n = y.shape[1]
        self.factors, self.widths = [], []
        for k in correlations:
            distance = np.maximum(2 - 2 * k, 0)
            width = RBF_WIDTH * np.sqrt(np.median(distance[np.triu_indices(n, 1)])) if n > 1 else 1.0
            width = max(float(width), 1e-3)
            kernel = np.exp(-distance / (2 * width**2)) + RBF_PENALTY * np.eye(n)
            self.factors.append((scipy.linalg.cho_factor(k + penalty * np.eye(n)), scipy.linalg.cho_factor(kernel)))
            self.widths.append(width)
        self.components = principal_components(y)

    def targets(self, correlations: list[np.ndarray], cells: list[np.ndarray], rates: np.ndarray) -> Targets:
        """From the reference's correlations of visible with target genes (per view), the target genes' cells (per view) and rates."""
        n, n_targets = correlations[0].shape
        linear = np.zeros((N_LINEAR, n, n_targets), dtype=np.float32)
        for view, k in enumerate(correlations):
            ridge, rbf = self.factors[view]
            linear[3 * view] = scipy.linalg.cho_solve(ridge, k)
            linear[3 * view + 1] = scipy.linalg.cho_solve(rbf, np.exp(-np.maximum(2 - 2 * k, 0) / (2 * self.widths[view] ** 2)))
            weight = np.maximum(k, 0)
            linear[3 * view + 2] = weight / np.maximum(weight.sum(0), 1e-9)
        for i, component in enumerate(self.components.T):
            linear[len(LINEAR) + i] = np.outer(component, component @ correlations[0])
        linear[N_LINEAR - 1] = 1 / n
        ordered = -np.sort(-np.abs(correlations[0]), axis=0)
        return Targets(linear, cells, rates, np.column_stack([ordered[0], ordered[:5].mean(0)]))


def principal_components(y: np.ndarray) -> np.ndarray:
    """The first 8 (visible genes, components) of z-scored spots; fewer where there are fewer genes."""
    covariance = (y.T @ y / max(len(y), 1)).astype(np.float64)
    n = len(covariance)
    k = min(N_SPECTRAL, n - 1)
    if k < 1:
        return np.zeros((n, 0))
    if n <= 4 * N_SPECTRAL or not covariance.any():  # eigsh finds nothing to start from in zeros, as one spot gives
        return np.linalg.eigh(covariance)[1][:, ::-1][:, :k]
    _, vectors = eigsh(covariance, k, v0=np.ones(n))
    return vectors[:, ::-1]


def choose_penalty(y: np.ndarray, k: np.ndarray) -> float:
    """λ of ridge with the highest median PCC of visible genes, each imputed as if hidden: leave-one-gene-out in closed form,
    Y - (Y A) / diag(A) with A = (K + λI)⁻¹."""
    eigenvalues, vectors = np.linalg.eigh(k)
    rotated = y @ vectors.astype(np.float32)
    scores = []
    for penalty in PENALTIES:
        inverse = 1 / (np.maximum(eigenvalues, 0) + penalty)
        diagonal = (vectors**2) @ inverse
        scores.append(np.median(pcc(y, y - (rotated * inverse.astype(np.float32)) @ vectors.T.astype(np.float32) / diagonal)))
    return PENALTIES[int(np.argmax(scores))]


def make_maps(spots: Spots, targets: Targets) -> np.ndarray:
    """All maps of the targets at the spots, (spots, genes, maps) float32, in the order of :data:`MAPS`."""
    n_targets = targets.linear.shape[2]
    maps = np.empty((len(spots.y), n_targets, len(MAPS)), dtype=np.float32)
    for i, coefficients in enumerate(targets.linear):
        maps[:, :, i] = spots.y @ coefficients
    maps[:, :, N_LINEAR] = spots.smooth @ targets.linear[0]
    for view, weights in enumerate(spots.nearest):
        maps[:, :, N_LINEAR + 1 + view] = weights @ targets.cells[view]
    maps[:, :, TOTAL] = spots.total[:, None]
    for i in range(len(LINEAR)):
        maps[:, :, TOTAL + 1 + i] = spots.like @ targets.linear[i]
    maps[:, :, -1] = mixed(spots, targets)
    return maps


def combine_maps(spots: Spots, targets: Targets, weights: np.ndarray) -> np.ndarray:
    """The weighted sum of all maps, (spots, genes), without making them one by one. ``weights``: (genes, maps)."""
    weights = weights.astype(np.float32)
    result = spots.y @ weighted_sum(targets.linear, weights[:, :N_LINEAR])
    result += spots.smooth @ (targets.linear[0] * weights[:, N_LINEAR])
    for view, nearest in enumerate(spots.nearest):
        result += nearest @ (targets.cells[view] * weights[:, N_LINEAR + 1 + view])
    result += spots.like @ weighted_sum(targets.linear[: len(LINEAR)], weights[:, TOTAL + 1 : -1])
    result += spots.total[:, None] * weights[:, TOTAL]
    more = mixed(spots, targets)
    more *= weights[:, -1]
    result += more
    return result


def weighted_sum(linear: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(maps, visible genes, genes), (genes, maps) -> (visible genes, genes)."""
    total = linear[0] * weights[:, 0]
    for coefficients, own in zip(linear[1:], weights.T[1:], strict=True):
        total += coefficients * own
    return total


def mixed(spots: Spots, targets: Targets) -> np.ndarray:
    """The map 'mixture', (spots, genes): log-normalised, less what the slide's usual mixture has."""
    values = spots.shares @ (spots.typical * targets.rates).astype(np.float32)
    np.log1p(values, out=values)
    values -= np.log1p(spots.typical * (spots.usual @ targets.rates)).astype(np.float32)
    return values


SHARED_SCALE = np.array([name in SPECTRAL for name in MAPS])
"""These maps keep their sizes relative to one another gene by gene: small means that the gene has no share in the component."""


def gene_scale(maps: np.ndarray) -> np.ndarray:
    """Each map's SD over spots, (genes, maps)."""
    return maps.std(0)


AGREEMENT = [
    MAPS.index(name)
    for name in ("ridge, cells", "rbf, cells", "correlation, cells", "nearest, cells", "ridge, averaged", "nearest, averaged")
]
SCALARS = (
    "reference mean",
    "reference SD",
    "detection",
    *(f"agreement of {MAPS[i]}" for i in AGREEMENT),
    "SD of the mean map",
    "agreement with the mean",
    "highest correlation",
    "top 5 correlations",
)
"""What is known of a gene without its measured values."""


def gene_scalars(maps: np.ndarray, targets: Targets, statistics: np.ndarray) -> np.ndarray:
    """(genes, scalars) in the order of :data:`SCALARS`.

    Parameters
    ----------
    maps
        (spots, genes, maps).
    statistics
        The reference's mean, SD and detection of the genes, (genes, 3).
    """
    scale = np.maximum(gene_scale(maps), 1e-9)
    chosen = maps[:, :, AGREEMENT] / scale[:, AGREEMENT]
    mean_map = chosen.mean(2)
    agreement = np.column_stack([pcc(mean_map, chosen[:, :, i]) for i in range(len(AGREEMENT))])
    overall = pcc(mean_map, np.ascontiguousarray(maps[:, :, MAPS.index("mean")]))
    return np.column_stack(
        [
            np.log(statistics[:, 0] + 1e-3),
            np.log(statistics[:, 1] + 1e-3),
            statistics[:, 2],
            agreement,
            mean_map.std(0),
            overall,
            targets.strongest,
        ]
    )


STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
MIN_GENES = 60
"""Fewer visible genes than this can't teach weights of a gene's own."""


class Stack:
    """How much each map is trusted: one weight per map, w, and a correction per gene from its scalars, w_g = w + B [1, s_g].

    w is least squares over all (gene, spot) pairs of visible genes. B is ridge on each gene's Gram matrix; its strength is chosen by
    cross-validation over genes, and B is left out when that gains nothing.
    """

    def __init__(self, weights: np.ndarray, correction: np.ndarray, centre: np.ndarray, spread: np.ndarray, shared: np.ndarray):
        self.weights, self.correction, self.centre, self.spread, self.shared = weights, correction, centre, spread, shared

    @classmethod
    def fit(cls, maps: np.ndarray, y: np.ndarray, scalars: np.ndarray, seed: int = 0, n_folds: int = 5) -> tuple[Stack, np.ndarray]:
        """From the maps of visible genes as if hidden, (spots, genes, maps), their measured z-scores (spots, genes), and scalars.

        Returns
        -------
        Stack
            Fitted on all genes.
        values
            (spots, genes): the combination for each gene with weights that were fitted on other genes.
        """
        n_spots, n_genes, n_maps = maps.shape
        centre, spread = scalars.mean(0), np.maximum(scalars.std(0), 1e-9)
        shared = np.sqrt((gene_scale(maps) ** 2).mean(0))
        stack = cls(np.zeros(n_maps), np.zeros((scalars.shape[1] + 1, n_maps)), centre, spread, shared)
        inverse = 1 / stack.scale(gene_scale(maps))
        gram = np.empty((n_genes, n_maps, n_maps))
        cross = np.empty((n_genes, n_maps))
        for g in range(n_genes):
            own = maps[:, g] * inverse[g].astype(np.float32)
            gram[g], cross[g] = own.T @ own / n_spots, own.T @ y[:, g] / n_spots
        features = stack._features(scalars)
        fold = np.empty(n_genes, dtype=int)
        fold[np.random.default_rng(seed).permutation(n_genes)] = np.arange(n_genes) % min(n_folds, n_genes)
        parts = [np.flatnonzero(fold != k) for k in range(fold.max() + 1)] if n_genes > 1 else [np.arange(1)]

        stack.weights = _global_weights(gram, cross)
        per_gene = np.empty((n_genes, n_maps))
        strength = None
        if n_genes >= MIN_GENES:
            losses = np.zeros(len(STRENGTHS))
            held = []
            for k, part in enumerate(parts):
                w = _global_weights(gram[part], cross[part])
                corrections = _corrections(gram[part], cross[part], features[part], w)
                own = np.flatnonzero(fold == k)
                held.append((own, w, corrections))
                for i, b in enumerate(corrections):
                    losses[i] += _loss(gram[own], cross[own], w + features[own] @ b) - _loss(
                        gram[own], cross[own], np.broadcast_to(w, (len(own), n_maps))
                    )
            if losses.min() < 0:
                strength = int(losses.argmin())
                stack.correction = _corrections(gram, cross, features, stack.weights, STRENGTHS[strength : strength + 1])[0]
            for own, w, corrections in held:
                per_gene[own] = w + (features[own] @ corrections[strength] if strength is not None else 0)
        else:
            for k, part in enumerate(parts):
                per_gene[fold == k] = _global_weights(gram[part], cross[part])
        return stack, np.einsum("sgm,gm->sg", maps, (per_gene * inverse).astype(np.float32), optimize=True)

    def _features(self, scalars: np.ndarray) -> np.ndarray:
        return np.column_stack([np.ones(len(scalars)), self.standardised(scalars)])

    def standardised(self, scalars: np.ndarray) -> np.ndarray:
        """Scalars of genes in units of the visible genes', clipped at ±3."""
        return np.clip((scalars - self.centre) / self.spread, -3, 3)

    def scale(self, scale: np.ndarray) -> np.ndarray:
        """What each map is divided by, (genes, maps), from :func:`gene_scale`."""
        scale = np.where(SHARED_SCALE, self.shared, scale)
        return np.where(scale > 1e-6, scale, 1)

    def gene_weights(self, scale: np.ndarray, scalars: np.ndarray) -> np.ndarray:
        """Weights of the maps as they are made, (genes, maps), from the maps' scale and the genes' scalars."""
        return (self.weights + self._features(scalars) @ self.correction) / self.scale(scale)


def _global_weights(gram: np.ndarray, cross: np.ndarray) -> np.ndarray:
    total = gram.mean(0)
    return np.linalg.solve(total + 1e-2 * max(np.trace(total) / len(total), 1e-9) * np.eye(len(total)), cross.mean(0))


def _corrections(gram, cross, features, weights, strengths=STRENGTHS) -> list[np.ndarray]:
    """B for each strength: minimises Σ_g |y_g - M_g (w + B f_g)|² + strength |B|²."""
    n_features, n_maps = features.shape[1], gram.shape[1]
    size = n_features * n_maps
    left = np.einsum("ga,gb,gij->aibj", features, features, gram, optimize=True).reshape(size, size)
    right = np.einsum("ga,gi->ai", features, cross - gram @ weights, optimize=True).ravel()
    values, vectors = np.linalg.eigh(left)
    turned = vectors.T @ right
    return [(vectors @ (turned / (np.maximum(values, 0) + s))).reshape(n_features, n_maps) for s in strengths]


def _loss(gram: np.ndarray, cross: np.ndarray, weights: np.ndarray) -> float:
    """Squared error of the genes with these weights, less that of nothing."""
    return float((np.einsum("gi,gij,gj->g", weights, gram, weights, optimize=True) - 2 * (weights * cross).sum(1)).sum())


@dataclasses.dataclass
class InnerFolds:
    """The visible genes' maps, each made as if the gene were hidden.

    Parameters
    ----------
    maps
        (spots, visible genes, maps).
    scalars
        (visible genes, scalars).
    y
        The visible genes as measured, z-scored, (spots, visible genes).
    """

    maps: np.ndarray
    scalars: np.ndarray
    y: np.ndarray


def inner_folds(
    counts: sp.csr_matrix,
    rows: np.ndarray,
    neighbours: sp.csr_matrix,
    views: list[np.ndarray],
    correlations: list[np.ndarray],
    clusters: np.ndarray,
    statistics: np.ndarray,
    penalty: float,
    n_folds: int,
    seed: int,
) -> InnerFolds:
    """Make the maps of every visible gene from the genes outside its fold; library sizes come from these, too.

    Parameters
    ----------
    counts
        (spots, visible genes).
    rows
        The spots that are learned from.
    clusters
        Counts of the visible genes in the reference's clusters, (clusters, visible genes).
    """
    n_genes = counts.shape[1]
    n_folds = min(n_folds, n_genes)
    order = np.random.default_rng(seed).permutation(n_genes)
    around = np.unique(neighbours[rows].indices) if len(rows) < counts.shape[0] else np.arange(counts.shape[0])
    local = neighbours[rows][:, around]
    inside = np.searchsorted(around, rows)
    maps = np.empty((len(rows), n_genes, len(MAPS)), dtype=np.float32)
    scalars = np.empty((n_genes, len(SCALARS)))
    for k in range(n_folds):
        hidden = np.sort(order[k::n_folds])
        seen = np.setdiff1d(np.arange(n_genes), hidden)
        if not len(seen):
            raise ValueError("inner folds need at least 2 visible genes")
        rates = cluster_rates(clusters, clusters[:, seen])
        spots = Spots.of(counts[around][:, seen], local, [z[:, seen] for z in views], rates[:, seen], inside, inside)
        mapper = Mapper(spots.y, [c[np.ix_(seen, seen)] for c in correlations], penalty)
        targets = mapper.targets([c[np.ix_(seen, hidden)] for c in correlations], [z[:, hidden] for z in views], rates[:, hidden])
        maps[:, hidden] = made = make_maps(spots, targets)
        scalars[hidden] = gene_scalars(made, targets, statistics[hidden])
    y = zscore(log_normalise(counts)[0], CLIP)[rows]
    return InnerFolds(maps, scalars, y)
