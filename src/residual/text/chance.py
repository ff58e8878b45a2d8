"""What texts explain by chance, and whether a head may bear the names of its own.

Whatever a head writes, the best ten of a thousand texts explain some of it. Two lines say what that is worth:
as many texts of the same dictionary, drawn instead of chosen; and the best of as many random directions as it
has texts, chosen as the texts are. The first is what any of its texts tell of such a head, the second what
choosing alone does. `Chance.names` decides in one place for tables, pages and Python.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from residual.errors import ResidualError
from residual.intervals import t95

FLOOR = 0.1  # of the variance: under a tenth told, nine tenths of what a head does would go by a wrong name
_DRAWS, _CHOSEN_DRAWS = 100, 30  # choosing from thousands gives nearly the same share each time
_NUMBERS = 2**25  # held at a time: of heads and entries
_NOTHING_LEFT = 1e-5  # of an atom's length, as in matching pursuit


@dataclass(frozen=True)
class Range:
    """The mean of several draws, and where 95 % of such draws lie."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, shares: Sequence[float]) -> Range:
        """By Student's t, `mean ± t s √(1 + 1/n)`, within 0 and 1."""
        mean, draws = statistics.fmean(shares), len(shares)
        half = t95(draws - 1) * statistics.stdev(shares) * (1 + 1 / draws) ** 0.5
        return cls(mean, max(0.0, mean - half), min(1.0, mean + half))

    def __str__(self) -> str:
        return f"{100 * self.low:.0f} to {100 * self.high:.0f} %"


@dataclass(frozen=True)
class Chance:
    """Parts of a head's variance that are explained by chance.

    Args:
        count: of texts.
        texts: by so many of the dictionary, drawn at random.
        directions: by so many random directions, the best of as many as the dictionary has texts.
        cosine: that the nearest of as many random directions has with any one direction; 97.5 % of draws stay
            below. A text no nearer to a component says nothing about it.
    """

    count: int
    texts: Range
    directions: Range
    cosine: float

    @property
    def bound(self) -> float:
        """What chosen texts have to exceed for a name."""
        return max(self.texts.high, self.directions.high, FLOOR)

    def names(self, share: float) -> bool:
        """Whether texts that explain this share of its variance may name a head: more than both lines reach
        by chance, and more than `FLOOR`."""
        return share > self.bound

    def verdict(self, share: float, what: str = "this head") -> str:
        """The same as a sentence about `what`.

        Example:
            >>> chance = Chance(8, Range(0.05, 0.03, 0.06), Range(0.04, 0.04, 0.05), 0.3)
            >>> print(chance.verdict(0.04))
            These texts explain 4 % of this head, no more than 8 texts at random (3 to 6 %): no name.
        """
        told = f"These texts explain {100 * share:.0f} % of {what}"
        random = f"{self.count} texts at random ({self.texts})"
        best = f"the best {self.count} of as many random directions"
        if share <= self.texts.high:
            return f"{told}, no more than {random}: no name."
        if share <= self.directions.high:
            return f"{told}, no more than {best} ({self.directions}): no name."
        if share <= FLOOR:
            return f"{told}, more than {random}, but under {100 * FLOOR:.0f} %: no name."
        return f"{told}; {self.count} texts at random {self.texts}, {best} {self.directions}."


def chances(
    samples: Sequence[Float[Tensor, "_ d"]], atoms: Float[Tensor, "m d"], count: int, seed: int = 0
) -> list[Chance]:
    """The chance of each of several heads, all at once.

    Random directions have no direction of their own to keep to: how well they do depends on a head's spectrum
    alone. Heads therefore share one drawn dictionary, in which each lies along the first axes, and a step of
    the pursuit is two matrix products for all of them.

    Args:
        samples: of each head the rows that texts are to explain, centred if their mean doesn't count.
        atoms: the dictionary's embeddings.
        count: how many are chosen of it.
        seed: of what is drawn.

    Raises:
        ResidualError: rows that are all zero, or of another width.
    """
    if not samples:
        return []
    atoms = normalize(atoms.float(), dim=1)
    entries, width = atoms.shape
    if wrong := [rows for rows in samples if rows.ndim != 2 or rows.shape[1] != width]:
        raise ResidualError(f"Samples are rows (n, {width}), got {tuple(wrong[0].shape)}.")
    if not all(bool(rows.any()) for rows in samples):
        raise ResidualError("The samples are all zero: there is nothing for texts to explain.")
    generator = torch.Generator().manual_seed(seed)
    bases = _random_bases(atoms, count, generator)
    drawn = [_explained_by(rows, bases) for rows in samples]
    spectra = torch.stack([_spectrum(rows, width) for rows in samples])
    group = max(1, _NUMBERS // entries)
    best, nearest = [], []
    for _ in range(_CHOSEN_DRAWS):
        directions = normalize(torch.randn(entries, width, generator=generator), dim=1).to(spectra)
        best.append(torch.cat([_best_of(directions, some, count) for some in spectra.split(group)]))
        nearest.append(directions.abs().amax(0))
    cosine = torch.cat(nearest).double().quantile(0.975).item()
    chosen = torch.stack(best, dim=1).tolist()
    return [
        Chance(count, Range.of(texts), Range.of(directions), cosine)
        for texts, directions in zip(drawn, chosen, strict=True)
    ]


def compact(rows: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
    """Few rows with the products of many, `Σ_n x_n x_nᵀ`: all that `chances` needs of them."""
    if len(rows) <= rows.shape[1]:
        return rows
    wide = rows.double()
    values, vectors = torch.linalg.eigh(wide.T @ wide)
    kept = values > 1e-12 * values[-1]
    return (vectors[:, kept] * values[kept].sqrt()).T.float()


def _random_bases(
    atoms: Float[Tensor, "m d"], count: int, generator: torch.Generator
) -> Float[Tensor, "d columns"]:
    """Orthonormal bases of the spans of texts that are drawn, beside each other."""
    places = [torch.randperm(len(atoms), generator=generator)[:count] for _ in range(_DRAWS)]
    drawn = atoms[torch.stack(places).to(atoms.device)].double().mT  # (draws, d, count)
    left, values, _ = torch.linalg.svd(drawn, full_matrices=False)
    left = left * (values > _NOTHING_LEFT * values[:, :1])[:, None]
    return left.permute(1, 0, 2).flatten(1)


def _explained_by(rows: Float[Tensor, "n d"], bases: Float[Tensor, "d columns"]) -> list[float]:
    along = (rows.double() @ bases.to(rows.device)).square().sum(0)
    return (along.reshape(_DRAWS, -1).sum(1) / rows.double().square().sum()).tolist()


def _spectrum(rows: Float[Tensor, "n d"], width: int) -> Float[Tensor, " d"]:
    """Parts of the squared length along the principal directions, the largest first."""
    rows = rows.double()
    square = rows @ rows.T if len(rows) <= width else rows.T @ rows
    values = torch.linalg.eigvalsh(square).flip(0).clamp(min=0)
    padded = values.new_zeros(width)
    padded[: len(values)] = values / values.sum()
    return padded.float()


def _best_of(
    atoms: Float[Tensor, "m d"], spectra: Float[Tensor, "heads d"], count: int
) -> Float[Tensor, " heads"]:
    """What the first `count` atoms by matching pursuit explain of heads whose axes are the coordinates.

    An atom's product with the samples, `Σ_i e_i a_i²`, is kept up to date as the chosen directions are taken
    out of it: with `a' = a − c b` it changes by `−2 c ⟨E b, a⟩ + c² ⟨E b, b⟩`.
    """
    scores = spectra @ atoms.square().T  # (heads, m)
    explained = spectra.new_zeros(len(spectra))
    basis: list[
        Tensor
    ] = []  # of each step the heads' directions (heads, d), and their products with the atoms
    along: list[Tensor] = []
    used = torch.zeros_like(scores, dtype=torch.bool)
    rows = torch.arange(len(spectra), device=scores.device)
    for _ in range(count):
        best = scores.masked_fill(used, -1).argmax(1)
        used[rows, best] = True
        direction = atoms[best]
        for _ in range(2):  # once more, against rounding
            for row in basis:
                direction = direction - (direction * row).sum(1, keepdim=True) * row
        length = direction.norm(dim=1, keepdim=True)
        direction = torch.where(length > _NOTHING_LEFT, direction / length, 0)
        weighted = spectra * direction
        own = (weighted * direction).sum(1)
        explained = explained + own
        onto = direction @ atoms.T  # what is left of an atom has the same product with a new direction
        seen = weighted @ atoms.T
        for row, product in zip(basis, along, strict=True):
            seen = seen - (weighted * row).sum(1, keepdim=True) * product
        scores = scores - 2 * onto * seen + onto.square() * own[:, None]
        basis.append(direction)
        along.append(onto)
    return explained
