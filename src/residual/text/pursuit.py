"""Few texts that stand for many vectors: matching pursuit over a dictionary of unit vectors.

All three methods choose one atom after the other and take the span of those chosen out of the rest. They do
so by taking it out of the dictionary, which gives the same products, `⟨x − P x, a⟩ = ⟨x, a − P a⟩` for the
projection `P` on the span, and leaves the samples as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import cosine_similarity, normalize

from residual.errors import ResidualError
from residual.spectral.bases import SpectralBases
from residual.spectral.pca import pca
from residual.text.chance import Chance, chances
from residual.text.dictionary import TextDictionary
from residual.tracing.units import UnitLike

CRITERIA = ("l1", "std", "l2", "cosine")
_Score = Callable[[Tensor, Sequence[Tensor]], Tensor]  # of atoms, what is left of them, and the basis so far
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
        mean: of the samples, where they were centred; else zero.
        chance: where it was asked for, what as many atoms explain of the samples by chance.
    """

    atoms: Int[Tensor, " k"]
    texts: tuple[str, ...]
    directions: Float[Tensor, "k d"]
    weights: Float[Tensor, "n k"]
    explained_variance: Float[Tensor, " k"]
    mean: Float[Tensor, " d"]
    chance: Chance | None = None

    @property
    def named(self) -> bool | None:
        """Whether the texts explain more than by chance, see `Chance.names`; None where that isn't known."""
        return None if self.chance is None else self.chance.names(self.explained_variance[-1].item())

    @property
    def reconstruction(self) -> Float[Tensor, "n d"]:
        """What the atoms make of the samples, with their mean."""
        return self.weights @ self.directions + self.mean

    def quality(self, x: Float[Tensor, "n d"]) -> dict[str, Float[Tensor, " k"]]:
        """How near the first 1, 2, …, `k` atoms come to the samples, mean included, as the published code
        reports it for SOMP.

        Args:
            x: the samples that atoms were chosen for.

        Returns:
            "explained_variance"; "l2", the mean square of what is missing, over samples and coordinates; and
            "cosine", the mean cosine of a sample and what the atoms make of it.
        """
        x, basis = x.detach().to(self.weights), _basis(self.directions).to(self.weights)
        fit, l2, cosine = self.mean.expand(len(x), -1), [], []
        for direction in basis.T:
            fit = fit + torch.outer((x - self.mean) @ direction, direction)
            l2.append((x - fit).square().mean())
            cosine.append(cosine_similarity(x, fit, dim=1).mean())
        parts = {"l2": torch.stack(l2), "cosine": torch.stack(cosine)}
        return {"explained_variance": self.explained_variance, **parts}

    def __len__(self) -> int:
        return len(self.atoms)


def somp(
    x: Float[Tensor, "n d"],
    dictionary: TextDictionary | Float[Tensor, "m d"],
    k: int,
    criterion: str = "l1",
    *,
    centre: bool = True,
    removal: bool = False,
    chance: bool = False,
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
        criterion: "l1" or "std" as above; "l2", the root of `Σ_n ⟨r_n, a⟩²`, which is "std" where samples are
            centred; or "cosine", `Σ_n |⟨r_n, a⟩| / ‖r_n‖`, in which every sample counts the same.
        centre: subtract the samples' mean before. Components have none: "std" is then the root mean square.
        removal: take the chosen atom's direction out of the others and make these unit vectors again, so that
            an atom counts by what it has to add, not by what it shares with those before.
        chance: also say what as many explain by chance, see `Pursuit.named`.

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
    x, mean = _moving(x, centre)
    scores = {"l1": _largest_sum, "cosine": _largest_cosine}
    chosen, _ = _chosen(atoms, k, scores.get(criterion, _largest_square)(x), removal)
    return _fitted(x, mean, chosen, atoms[chosen], texts, atoms if chance else None)


def omp(
    x: Float[Tensor, "n d"],
    dictionary: TextDictionary | Float[Tensor, "m d"],
    k: int,
    *,
    chance: bool = False,
) -> Pursuit:
    """Orthogonal matching pursuit of the first principal component of the samples.

    Args:
        x: samples; or one row, which is then taken as it is.
        dictionary, k, chance: as `somp` takes them. Atoms that point the other way have negative weights.

    Raises:
        ResidualError: as `somp`; or the samples are all the same.

    Example:
        >>> import torch
        >>> from residual.text import omp
        >>> omp(torch.tensor([[0.0, 0.8, 0.6]]), torch.eye(3), 2).atoms  # one direction
        tensor([1, 2])
    """
    x, atoms, texts = _checked(x, dictionary, k)
    vector = _moving(x, False)[0] if len(x) == 1 else pca(_moving(x, True)[0], 1).components.to(x)
    chosen, _ = _chosen(atoms, k, _largest_sum(vector))
    mean = torch.zeros_like(vector[0])
    return _fitted(vector, mean, chosen, atoms[chosen], texts, atoms if chance else None)


def text_span(
    x: Float[Tensor, "n d"],
    dictionary: TextDictionary | Float[Tensor, "m d"],
    k: int,
    rank: int | None = 80,
    *,
    chance: bool = False,
) -> Pursuit:
    """TextSpan: `k` directions made of texts, each the one along which the samples vary most.

    Normalised atoms are projected on the first `rank` right singular vectors of the samples; then, with the
    samples centred, `k` times: the atom whose products with them have the largest standard deviation gives
    the next direction, which is taken out of the samples and of every atom (Gandelsman, Efros and Steinhardt
    2024, arXiv 2310.05916, algorithm 1).

    Args:
        x, dictionary, k, chance: as `somp` takes them.
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
    entries = atoms
    if rank is not None:
        if rank < 1:
            raise ResidualError(f"The rank must be at least 1, got {rank}.")
        wide = x.double()
        _, vectors = torch.linalg.eigh(wide.T @ wide)
        span = vectors[:, -min(rank, len(x)) :].to(x)
        atoms = atoms @ span @ span.T
    x, mean = _moving(x, True)
    chosen, directions = _chosen(atoms, k, _largest_square(x))
    return _fitted(x, mean, chosen, directions, texts, entries if chance else None)


def weighted_components(bases: SpectralBases, unit: UnitLike) -> Float[Tensor, "k d"]:
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


def _largest_sum(x: Tensor) -> _Score:
    """`Σ_n |⟨x_n, a⟩|` of every atom."""

    def score(atoms: Tensor, basis: Sequence[Tensor]) -> Tensor:
        parts = x.split(max(1, _PRODUCTS[x.device.type] // len(atoms)))
        return torch.stack([(part @ atoms.T).abs().sum(0) for part in parts]).sum(0)

    return score


def _largest_cosine(x: Tensor) -> _Score:
    """The same of what the span so far leaves of each sample, at length 1, if it leaves anything."""
    lengths = x.norm(dim=1, keepdim=True)

    def score(atoms: Tensor, basis: Sequence[Tensor]) -> Tensor:
        left = x
        for row in basis:
            left = left - torch.outer(left @ row, row)
        left = left.masked_fill(left.norm(dim=1, keepdim=True) <= _NOTHING_LEFT * lengths, 0)
        return _largest_sum(normalize(left, dim=1))(atoms, basis)

    return score


def _largest_square(x: Tensor) -> _Score:
    """`Σ_n ⟨x_n, a⟩²` of every atom, which grows as the standard deviation does where samples are centred."""
    square = x.T @ x
    return lambda atoms, basis: ((atoms @ square) * atoms).sum(1)


def _moving(x: Tensor, centre: bool) -> tuple[Tensor, Tensor]:
    """The samples, less their mean where `centre`, if more than its rounding is left of them; and that mean.

    Raises:
        ResidualError: nothing is.
    """
    before, mean = vector_norm(x, dtype=torch.float64), torch.zeros_like(x[0])
    for _ in range(2 * centre):  # once more, against the rounding of a mean, which grows with their number
        part = x.mean(0)
        x, mean = x - part, mean + part
    if not vector_norm(x, dtype=torch.float64) > torch.finfo(x.dtype).eps * before:
        raise ResidualError(
            f"The samples are all {'the same' if centre else 'zero'}: there is nothing for texts to explain."
        )
    return x, mean


def _chosen(atoms: Tensor, k: int, score: _Score, removal: bool = False) -> tuple[Tensor, Tensor]:
    """Positions of `k` atoms, and an orthonormal basis of their span, a row for each."""
    left, used, basis = atoms.clone(), torch.zeros(len(atoms), dtype=torch.bool, device=atoms.device), []
    order = []
    for _ in range(k):
        rest = left
        if removal:
            rest = normalize(left.masked_fill(left.norm(dim=1, keepdim=True) <= _NOTHING_LEFT, 0), dim=1)
        best = int(score(rest, basis).masked_fill(used, -1).argmax())
        used[best] = True
        order.append(best)
        direction = left[best]
        for row in basis:  # once more, against rounding
            direction = direction - (direction @ row) * row
        length = direction.norm()
        basis.append(direction / length if length > _NOTHING_LEFT else torch.zeros_like(direction))
        left = left - torch.outer(left @ basis[-1], basis[-1])
    return torch.tensor(order, device=atoms.device), torch.stack(basis)


def _fitted(
    x: Tensor,
    mean: Tensor,
    chosen: Tensor,
    directions: Tensor,
    texts: tuple[str, ...],
    entries: Tensor | None,
) -> Pursuit:
    """Least squares of the samples, less their mean, on the directions, and what the first explain; beside
    what as many of `entries` do by chance."""
    inverse = torch.linalg.pinv(directions.double()).to(x)  # (d, k)
    along = (x @ _basis(directions).to(x)).double().square().sum(0)
    return Pursuit(
        atoms=chosen,
        texts=tuple(texts[place] for place in chosen.tolist()) if texts else (),
        directions=directions,
        weights=x @ inverse,
        explained_variance=along.cumsum(0) / vector_norm(x, dtype=torch.float64) ** 2,
        mean=mean,
        chance=None if entries is None else chances([x], entries, len(chosen))[0],
    )


def _basis(directions: Tensor) -> Tensor:
    """Orthonormal columns `(d, k)`: the first 1, 2, … have the span of as many directions; zero where one of
    these adds nothing. Float64."""
    basis, small = torch.linalg.qr(directions.double().T)
    return basis * (small.diagonal().abs() > _NOTHING_LEFT)
