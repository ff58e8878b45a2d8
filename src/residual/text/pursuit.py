"""Few texts that stand for many vectors: matching pursuit over a dictionary of unit vectors.

All three methods choose one atom after the other and take the span of those chosen out of the rest. They do
so by taking it out of the dictionary, which gives the same products, `⟨x − P x, a⟩ = ⟨x, a − P a⟩` for the
projection `P` on the span, and leaves the samples as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import normalize

from residual.errors import ResidualError
from residual.spectral.bases import SpectralBases
from residual.spectral.pca import pca
from residual.text.dictionary import TextDictionary

CRITERIA = ("l1", "std")
_PRODUCTS = {"cpu": 2**22, "cuda": 2**27}  # of samples and atoms, held at a time
_NOTHING_LEFT = 1e-5  # of an atom's length: it lies in the span of those before


@dataclass(frozen=True)
class Pursuit:
    """Atoms in the order in which they were chosen, and what they make of the samples.

    Those that add nothing to the explained variance come last, in no order that says anything.

    Args:
        atoms: positions in the dictionary.
        texts: their texts, empty for a dictionary without.
        directions: what the samples were fitted with: the chosen atoms; those of TextSpan are orthonormal.
        weights: of every direction in every sample.
        explained_variance: part of the samples' squared length that the first 1, 2, …, `k` explain.
    """

    atoms: Int[Tensor, " k"]
    texts: tuple[str, ...]
    directions: Float[Tensor, "k d"]
    weights: Float[Tensor, "n k"]
    explained_variance: Float[Tensor, " k"]

    @property
    def reconstruction(self) -> Float[Tensor, "n d"]:
        """What the atoms make of the samples; of centred samples, where those were centred."""
        return self.weights @ self.directions

    def __len__(self) -> int:
        return len(self.atoms)


def somp(
    x: Float[Tensor, "n d"],
    dictionary: TextDictionary | Float[Tensor, "m d"],
    k: int,
    criterion: str = "l1",
    *,
    centre: bool = True,
) -> Pursuit:
    """Simultaneous orthogonal matching pursuit: `k` atoms that together explain all samples.

    With the samples centred, `k` times: the unused atom with the largest `Σ_n |⟨r_n, a⟩|` is chosen (or with
    the largest standard deviation of `⟨r_n, a⟩`), all that are chosen are fitted to the samples by least
    squares, and `r` is what they leave (Tropp, Gilbert and Strauss 2006; Basile et al. 2025, arXiv
    2411.00246). Atoms are L2-normalised beforehand.

    Args:
        x: samples, on the device that is to do the work: contributions of a unit, the sum of several, the
            output of an adapter; or few rows that stand for them (`weighted_components`).
        dictionary: texts, or their embeddings.
        k: how many atoms.
        criterion: "l1" or "std".
        centre: subtract the samples' mean before. Components have none: "std" is then the root mean square.

    Raises:
        ResidualError: an empty dictionary, fewer entries than `k`, other widths, NaN, an unknown criterion,
            or samples that are all the same.

    Example:
        >>> import torch
        >>> from residual.text import TextDictionary, somp
        >>> dictionary = TextDictionary(["red", "round", "striped"], torch.eye(3))
        >>> found = somp(torch.tensor([[0.0, 1.0, 3.0], [0.0, -1.0, -3.0], [0.0, 3.0, 0.0]]), dictionary, 2)
        >>> found.texts, found.explained_variance
        (('striped', 'round'), tensor([0.6923, 1.0000], dtype=torch.float64))
    """
    if criterion not in CRITERIA:
        raise ResidualError(f"Unknown criterion {criterion!r}. Known: {', '.join(CRITERIA)}.")
    x, atoms, texts = _checked(x, dictionary, k)
    x = _moving(x, centre)
    chosen, _ = _chosen(atoms, k, _largest_sum(x) if criterion == "l1" else _largest_square(x))
    return _fitted(x, chosen, atoms[chosen], texts)


def omp(x: Float[Tensor, "n d"], dictionary: TextDictionary | Float[Tensor, "m d"], k: int) -> Pursuit:
    """Orthogonal matching pursuit of the first principal component of the samples.

    Args:
        x: samples; or one row, which is then taken as it is.
        dictionary, k: as `somp` takes them. Atoms that point the other way have negative weights.

    Raises:
        ResidualError: as `somp`; or the samples are all the same.

    Example:
        >>> import torch
        >>> from residual.text import omp
        >>> omp(torch.tensor([[0.0, 0.8, 0.6]]), torch.eye(3), 2).atoms  # one direction
        tensor([1, 2])
    """
    x, atoms, texts = _checked(x, dictionary, k)
    vector = _moving(x, False) if len(x) == 1 else pca(_moving(x, True), 1).components.to(x)
    chosen, _ = _chosen(atoms, k, _largest_sum(vector))
    return _fitted(vector, chosen, atoms[chosen], texts)


def text_span(
    x: Float[Tensor, "n d"],
    dictionary: TextDictionary | Float[Tensor, "m d"],
    k: int,
    rank: int | None = 80,
) -> Pursuit:
    """TextSpan: `k` directions made of texts, each the one along which the samples vary most.

    Normalised atoms are projected on the first `rank` right singular vectors of the samples; then, with the
    samples centred, `k` times: the atom whose products with them have the largest standard deviation gives
    the next direction, which is taken out of the samples and of every atom (Gandelsman, Efros and Steinhardt
    2024, arXiv 2310.05916, algorithm 1).

    Args:
        x, dictionary, k: as `somp` takes them.
        rank: of the projection; None leaves it out. Cut to that of the samples.

    Raises:
        ResidualError: as `somp`; or a rank below 1.

    Example:
        >>> import torch
        >>> from residual.text import text_span
        >>> x = torch.tensor([[0.0, 1.0, 3.0], [0.0, -1.0, -3.0], [0.0, 3.0, 0.0]])
        >>> text_span(x, torch.eye(3), 2).atoms
        tensor([2, 1])
    """
    x, atoms, texts = _checked(x, dictionary, k)
    if rank is not None:
        if rank < 1:
            raise ResidualError(f"The rank must be at least 1, got {rank}.")
        wide = x.double()
        _, vectors = torch.linalg.eigh(wide.T @ wide)
        span = vectors[:, -min(rank, len(x)) :].to(x)
        atoms = atoms @ span @ span.T
    x = _moving(x, True)
    chosen, directions = _chosen(atoms, k, _largest_square(x))
    return _fitted(x, chosen, directions, texts)


def weighted_components(bases: SpectralBases, unit: int) -> Float[Tensor, "k d"]:
    """A unit's components times the standard deviations along them: few rows with the samples' covariance.

    Products with these have the same mean square as those with the centred samples, so that `somp(…,
    criterion="std", centre=False)` chooses the same atoms at a fraction of the cost.

    Raises:
        ResidualError: the unit has no basis.
    """
    own = bases.select([unit])
    return own.components[0] * own.eigenvalues[0].sqrt()[:, None]


def _checked(
    x: Tensor, dictionary: TextDictionary | Tensor, k: int
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    texts: tuple[str, ...] = ()
    if isinstance(dictionary, TextDictionary):
        dictionary, texts = dictionary.embeddings, dictionary.texts
    if x.ndim != 2 or not len(x):
        raise ResidualError(f"Samples are rows (n, d), one or more; got {tuple(x.shape)}.")
    if dictionary.ndim != 2 or not len(dictionary):
        raise ResidualError("The dictionary is empty.")
    if dictionary.shape[1] != x.shape[1]:
        raise ResidualError(f"The dictionary has width {dictionary.shape[1]}, the samples {x.shape[1]}.")
    if not 1 <= k <= len(dictionary):
        raise ResidualError(f"Of {len(dictionary)} entries 1 to {len(dictionary)} can be chosen, not {k}.")
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    atoms = dictionary.detach().to(x)
    norms = atoms.norm(dim=1)
    if not (x.isfinite().all() and norms.isfinite().all()):
        raise ResidualError("The samples or the dictionary hold NaN or infinity.")
    if len(zero := (norms == 0).nonzero()):
        raise ResidualError(f"Entry {int(zero[0])} of the dictionary is zero: it has no direction.")
    return x, normalize(atoms, dim=1), texts


def _largest_sum(x: Tensor) -> Callable[[Tensor], Tensor]:
    """`Σ_n |⟨x_n, a⟩|` of every atom."""

    def score(atoms: Tensor) -> Tensor:
        parts = x.split(max(1, _PRODUCTS[x.device.type] // len(atoms)))
        return torch.stack([(part @ atoms.T).abs().sum(0) for part in parts]).sum(0)

    return score


def _largest_square(x: Tensor) -> Callable[[Tensor], Tensor]:
    """`Σ_n ⟨x_n, a⟩²` of every atom, which grows as the standard deviation does where samples are centred."""
    square = x.T @ x
    return lambda atoms: ((atoms @ square) * atoms).sum(1)


def _moving(x: Tensor, centre: bool) -> Tensor:
    """The samples, less their mean where `centre`, if more than its rounding is left of them.

    Raises:
        ResidualError: nothing is.
    """
    before = vector_norm(x, dtype=torch.float64)
    for _ in range(2 * centre):  # once more, against the rounding of a mean, which grows with their number
        x = x - x.mean(0)
    if not vector_norm(x, dtype=torch.float64) > torch.finfo(x.dtype).eps * before:
        raise ResidualError(
            f"The samples are all {'the same' if centre else 'zero'}: there is nothing for texts to explain."
        )
    return x


def _chosen(atoms: Tensor, k: int, score: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Positions of `k` atoms, and an orthonormal basis of their span, a row for each."""
    left, used, basis = atoms.clone(), torch.zeros(len(atoms), dtype=torch.bool, device=atoms.device), []
    order = []
    for _ in range(k):
        best = int(score(left).masked_fill(used, -1).argmax())
        used[best] = True
        order.append(best)
        direction = left[best]
        for row in basis:  # once more, against rounding
            direction = direction - (direction @ row) * row
        length = direction.norm()
        basis.append(direction / length if length > _NOTHING_LEFT else torch.zeros_like(direction))
        left = left - torch.outer(left @ basis[-1], basis[-1])
    return torch.tensor(order, device=atoms.device), torch.stack(basis)


def _fitted(x: Tensor, chosen: Tensor, directions: Tensor, texts: tuple[str, ...]) -> Pursuit:
    """Least squares of the samples on the directions, and what the first of them explain."""
    rows = directions.double()
    basis, small = torch.linalg.qr(rows.T)  # (d, k), (k, k)
    basis = basis * (small.diagonal().abs() > _NOTHING_LEFT)
    inverse = torch.linalg.pinv(rows).to(x)  # (d, k)
    along = (x @ basis.to(x)).double().square().sum(0)
    return Pursuit(
        atoms=chosen,
        texts=tuple(texts[place] for place in chosen.tolist()) if texts else (),
        directions=directions,
        weights=x @ inverse,
        explained_variance=along.cumsum(0) / vector_norm(x, dtype=torch.float64) ** 2,
    )
