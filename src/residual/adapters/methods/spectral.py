"""The spectral map at the output: its principal components re-weighted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from residual.adapters.adapter import OutputMap, Reweighted
from residual.adapters.adapter_settings import WRITE_BACKS, AdapterSettings, Rank, Reference, check_choice
from residual.errors import ResidualError
from residual.spectral.bases import Origin
from residual.spectral.pca import PCA


class SpectralMap(OutputMap, Reweighted):
    """`o' = ((o − m) Φᵀ ⊙ λ) Φ`: re-weighted principal components of the output itself.

    The spectral map at the output of Basile et al. 2025, arXiv 2411.00246.

    Args:
        pca: of the encoder's outputs (`fit_output`).
        rank, tail, init, seed: as for `ResiDual`.
        mean: "drop" the mean of the outputs, as in the paper, or "keep" it.
        origin: the encoder that it is for, if known.
        write_back: "equation" as above; or "transposed", as in the code that was published with the paper:
            where there are as many components as the output is wide, they are left out of it, and λ weights
            the output's own coordinates, `o' = (o − m) ⊙ λ`.

    Attributes:
        lambdas: `(k,)`, the only parameter.

    Raises:
        ResidualError: as `ResiDual`.
    """

    method: ClassVar[str] = "spectral"
    label: ClassVar[str] = "spectral map"
    about: ClassVar[str] = "a spectral map: the output's principal components, each re-weighted by one number"
    trained: ClassVar[str] = "weighting {:,} components of its output"
    look: ClassVar[tuple[str, str, str]] = ("#CC79A7", "^", "-")
    takes: ClassVar[tuple[str, ...]] = ("rank", "tail", "mean", "init", "write_back")
    learning_rate: ClassVar[float] = 1e-3

    def __init__(
        self,
        pca: PCA,
        rank: Rank = None,
        tail: str = "drop",
        init: str | Tensor = "randn",
        seed: int = 0,
        mean: str = "drop",
        origin: Origin | None = None,
        write_back: str = "equation",
    ):
        check_choice("write_back", write_back, WRITE_BACKS)
        rows = pca.components
        if write_back == "transposed" and len(rows) == rows.shape[1]:
            rows = torch.eye(len(rows), dtype=rows.dtype)
        super().__init__(
            [rows], [pca.eigenvalues], pca.mean[None], ["The output"], rank, tail, mean, init, seed
        )
        self.pca, self.origin, self.write_back = pca, origin, write_back

    @classmethod
    def make(cls, reference: Reference, settings: AdapterSettings, seed: int) -> SpectralMap:
        """All components of the output, by default."""
        if reference.output is None:
            raise ResidualError(
                "The spectral map needs components of the output, which a file of bases doesn't hold: take "
                "bases from a dataset."
            )
        chosen = settings.chosen(*cls.takes)
        return cls(reference.output, seed=seed, origin=reference.bases.origin, **chosen)

    def at_ranks(self, ranks: Sequence[int]) -> SpectralMap:
        """The same with so many components; λ starts at 1."""
        if tuple(ranks) == self.ranks:
            return self
        how = (self.pca, list(ranks), self.tail, "ones")
        return type(self)(*how, mean=self.mean, origin=self.origin, write_back=self.write_back)

    def scored(self, output: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n K"], Float[Tensor, "n d"]]:
        """Scores of the centred output on the components; means and tails where they are kept."""
        directions, mean = self.directions.detach().to(output), self.means[0].to(output)
        centred = output - mean
        scores = centred @ directions.T
        rest = mean.expand_as(output) if self.mean == "keep" else torch.zeros_like(output)
        return scores, rest + centred - scores @ directions if self.tail == "keep" else rest

    def to_saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """λ and choices, and all there is of the components."""
        tensors, choices = super().to_saved()
        tensors |= {
            "means": self.pca.mean[None],
            "components": self.pca.components.float(),
            "eigenvalues": self.pca.eigenvalues,
            "total_variance": torch.tensor(self.pca.total_variance, dtype=torch.float64),
        }
        return tensors, choices

    @classmethod
    def from_saved(
        cls, tensors: dict[str, Tensor], choices: dict[str, Any], origin: Origin | None
    ) -> SpectralMap:
        """On the same components."""
        components, total = tensors["components"].double(), tensors["total_variance"].item()
        pca = PCA(tensors["means"][0].double(), components, tensors["eigenvalues"], total)
        own = {"rank": choices["ranks"], "tail": choices["tail"], "mean": choices["mean"]}
        own["write_back"] = choices.get("write_back", "equation")
        return cls(pca, init=tensors["lambdas"], origin=origin, **own)
