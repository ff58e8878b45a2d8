"""Definitions written out in float64 NumPy, for tests to compare with: spectra, and how alike two are."""

from __future__ import annotations

import numpy as np


def plain_spectrum(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of the rows of `x` and their variances, numerically zero ones left out."""
    x = np.asarray(x, np.float64)
    _, singular, rows = np.linalg.svd(x - x.mean(0), full_matrices=False)
    variances = singular**2 / (len(x) - 1)
    kept = variances > 1e-10 * variances[0]
    return rows[kept], variances[kept]


def plain_rank(variances: np.ndarray, explained: float) -> int:
    """How many of the first components hold more than that part of the variance."""
    running, total = 0.0, variances.sum()
    for place, variance in enumerate(variances, 1):
        running += variance
        if running / total > explained:
            return place
    return len(variances)


def plain_spectral_cosine(
    a: np.ndarray, b: np.ndarray, weights_a: np.ndarray | None = None, weights_b: np.ndarray | None = None
) -> float:
    """The largest weighted cosine, the largest outside its row and column, and so on; their 2-norm."""
    few = min(len(a), len(b))
    weights_a = np.ones(len(a)) if weights_a is None else weights_a
    weights_b = np.ones(len(b)) if weights_b is None else weights_b
    norm = np.sqrt(((weights_a[:few] * weights_b[:few]) ** 2).sum())
    values = {
        (i, j): abs(a[i] @ b[j]) * weights_a[i] * weights_b[j] / norm
        for i in range(len(a))
        for j in range(len(b))
    }
    taken = []
    while values:
        row, column = max(values, key=values.get)
        taken.append(values[row, column])
        values = {at: value for at, value in values.items() if at[0] != row and at[1] != column}
    return float(np.sqrt(np.square(taken).sum()))


def plain_angle(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of the principal angles of two spans, in degrees."""
    cosines = np.linalg.svd(a @ b.T, compute_uv=False)
    return float(np.degrees(np.arccos(cosines.clip(-1, 1))).mean())
