"""Split what an encoder outputs into the contributions of its units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.encoders.changes import EncoderLike, checked_encoder
from residual.encoders.pixels import Pixels
from residual.errors import ResidualError, unknown_name
from residual.finite import SHORTEST, plain
from residual.tracing.checks import check_sum
from residual.tracing.coordinates import Coordinates, SourcedCoordinates
from residual.tracing.linearization import Linearization, linearization_of
from residual.tracing.sources import Tokens, source_contributions, tokens_of
from residual.tracing.trace import Texts, traced, traced_by_source
from residual.tracing.units import KINDS, UnitsLike, is_one_unit


@runtime_checkable
class CosineClassifier(Protocol):
    """What `Decomposition.logits` needs of a `ZeroShotClassifier`."""

    weights: Tensor
    scale: float
    class_names: tuple[str, ...]

    @property
    def dim(self) -> int:
        """Width of the features it takes."""


@dataclass(frozen=True, repr=False, eq=False)
class Decomposition:
    """Contributions `(n, t, u, d)` of the units that were asked for, and the model's own output `(n, t, d)`.

    `units` has one row for each contribution, in order; its column `unit` is the position among all units.
    `coordinates` are the small numbers behind them, and `linearization` the exact map from those. With
    `sources=True`, `sources` splits the contributions of the heads among `units`, in their order, by the
    token `j` that they attend to, `attention` is how much each head does, and `tokens` what the tokens are.

    Example:
        >>> import residual
        >>> encoder = residual.load_encoder("picto", device="cpu")
        >>> split = decompose(encoder, torch.rand(2, 3, 64, 64))
        >>> split
        Decomposition(2 samples of 1 token, 57 units (1 emb, 8 mlp, 48 head) of width 192)
        >>> split["7.2"].shape, split[["7.2", "mlp.3"]].shape
        (torch.Size([2, 1, 192]), torch.Size([2, 1, 2, 192]))
    """

    contributions: Float[Tensor, "n t u d"]
    output: Float[Tensor, "n t d"]
    units: pd.DataFrame
    coordinates: Coordinates
    linearization: Linearization
    sources: Float[Tensor, "n t heads j d"] | None = None
    attention: Float[Tensor, "n *p l h j"] | None = None
    tokens: Tokens | None = None

    def __getitem__(self, units: UnitsLike) -> Float[Tensor, "n t *u d"]:
        """Contributions of one unit `(n, t, d)`, or of several `(n, t, u, d)`: see `Units.checked`; or a mask
        of these rows.

        Raises:
            ResidualError: there is no such unit, or it was left out of this decomposition.
        """
        places = self._places(units)
        return self.contributions[:, :, places[0] if is_one_unit(units) else places]

    def _places(self, units: UnitsLike) -> list[int]:
        held = {unit: place for place, unit in enumerate(self.units["unit"].tolist())}
        mask = plain(units)
        if isinstance(mask, list) and len(mask) == len(held) and all(type(each) is bool for each in mask):
            return [place for place, chosen in enumerate(mask) if chosen]
        every = self.linearization.units
        chosen = every.checked(units)
        if missing := [every.name(unit) for unit in chosen if unit not in held]:
            kinds = ", ".join(self.units["kind"].unique())
            raise ResidualError(f"This decomposition is of units of kind {kinds}: it holds no {missing[0]}.")
        return [held[unit] for unit in chosen]

    def logits(self, classifier: CosineClassifier) -> Float[Tensor, "n t u c"]:
        """Each unit's part of each class's logit: `scale · ⟨c_u, w_k⟩ / ‖o‖`.

        Logits are cosines, and so not linear in the output `o`: as the norm of the LayerNorm is frozen to
        split the output, the norm of the whole output is frozen to split its cosines. The parts of all units
        then sum to `classifier.logits(output)`; without a unit the norm would be another, too, which is what
        `encoder.without` gives.

        Args:
            classifier: a `ZeroShotClassifier`.

        Raises:
            ResidualError: it takes features of another width.
        """
        if classifier.dim != self.output.shape[-1]:
            raise ResidualError(
                f"The classifier takes features of width {classifier.dim}, got {self.output.shape[-1]}."
            )
        wide = torch.promote_types(self.contributions.dtype, torch.float32)
        norm = self.output.to(wide).norm(dim=-1)[..., None, None].clamp(min=SHORTEST)
        weights = classifier.weights.to(self.contributions.device, wide)
        return classifier.scale * (self.contributions.to(wide) / norm) @ weights.T

    def top(
        self,
        k: int | np.integer = 10,
        classifier: CosineClassifier | None = None,
        label: int | np.integer | str | None = None,
    ) -> pd.DataFrame:
        """The `k` units that contribute most, as rows of the units table with their `value`, largest first.

        Args:
            k: how many, or all if there are fewer.
            classifier: by it, `value` is a unit's part of a logit (see `logits`), which may be negative, else
                the norm of its contribution; means over samples and tokens.
            label: whose logit, by number or name; by default each sample's largest one.

        Raises:
            ResidualError: `k` isn't 1 or more, there is no such class, or `label` comes without a classifier.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ResidualError(f"The best units are 1 or more, got {k!r}.")
        if classifier is None:
            if label is not None:
                raise ResidualError(f"The logit of {label!r} needs a classifier.")
            values = self.contributions.detach().double().norm(dim=-1).mean((0, 1))
        else:
            parts = self.logits(classifier).detach().double()  # (n, t, u, c)
            if label is None:
                best = (self.output.detach().to(parts) @ classifier.weights.to(parts).T).argmax(-1)  # (n, t)
                values = parts.take_along_dim(best[..., None, None], -1)[..., 0].mean((0, 1))
            else:
                values = parts[..., class_number(label, classifier.class_names)].mean((0, 1))
        table = self.units.assign(value=values.cpu().numpy())
        return table.sort_values("value", ascending=False, kind="stable").head(int(k)).reset_index(drop=True)

    def __repr__(self) -> str:
        n, tokens, units, width = self.contributions.shape
        counts = self.units["kind"].value_counts(sort=False)
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        of_tokens = f"{tokens} token{'s' * (tokens > 1)}"
        return f"Decomposition({n} samples of {of_tokens}, {units} units ({kinds}) of width {width})"


def class_number(label: int | np.integer | str, class_names: Sequence[str]) -> int:
    """The number of a class, from that or its name.

    Raises:
        ResidualError: there is none, or several have that name.
    """
    if isinstance(label, str):
        if (count := list(class_names).count(label)) == 1:
            return list(class_names).index(label)
        if count:
            raise ResidualError(f"{count} classes are called {label!r}: give the number of one.")
        raise unknown_name("class", label, class_names)
    if not 0 <= label < len(class_names):
        raise ResidualError(f"Classes are 0 to {len(class_names) - 1}, got {label}.")
    return int(label)


def decompose(
    encoder: EncoderLike,
    pixels: Pixels | Texts,
    pooling: str = "own",
    kinds: Sequence[str] = KINDS,
    *,
    tower: str = "image",
    grad: bool = False,
    sources: bool = False,
) -> Decomposition:
    """Split a tower's output into units: `Σ_u c_u` is the output, exactly (see `Linearization`).

    Args:
        encoder: from `load_encoder` or `wrap_encoder`; or what wraps one, as an `AdaptedEncoder`, whose
            contributions are those that its adapter makes of the encoder's, and sum to its features.
        pixels: from `encoder.pixels`, of torch or NumPy; for the text tower texts, or their token ids.
        pooling: which tokens' output.
            "own": what the encoder does itself (class token, average, attention pool, end of text);
            "cls": the class token;
            "avg", "avg:all": the mean over the patches, or over all tokens, normed where the encoder norms
            if it averages itself, else each token before;
            "all", "patches", "token:INDEX": each of those tokens, normed and projected as the encoder does
            the token it pools (past an attention pool: normed, and projected if the pool's output is); the
            result keeps the token axis.
        kinds: which kinds of unit to give: "emb", "mlp", "head".
        tower: "image" or "text".
        grad: let gradients flow to the inputs (and to whatever the coordinates depend on; the map from
            them to contributions is constant). By default none are kept.
        sources: split each head's contribution by the token that it attends to, too: `Σ_j` of `.sources` is
            the contribution. `(n, t, u, j, d)` numbers are many; `source_scores` makes those along some
            directions.

    Raises:
        ResidualError: an unknown pooling, kind or tower; or the sum of all units misses the model's own
            output; or what heads attend to can't be seen, or misses what they give.

    Example:
        >>> import residual
        >>> encoder = residual.load_encoder("picto", device="cpu")
        >>> split = decompose(encoder, torch.rand(2, 3, 64, 64))
        >>> split.contributions.shape  # images, tokens, units, width of the output
        torch.Size([2, 1, 57, 192])
        >>> torch.allclose(split.contributions.sum(2), split.output, atol=1e-4)
        True
        >>> split.units["kind"].value_counts().to_dict()
        {'head': 48, 'mlp': 8, 'emb': 1}
    """
    if grad and torch.is_inference_mode_enabled():
        raise ResidualError(
            "There are no gradients inside torch.inference_mode(): leave it, or leave out grad."
        )
    encoder = checked_encoder(encoder)
    parts = encoder.parts_of(tower)
    linearization = linearization_of(encoder, parts, tower, pooling)
    chosen = linearization.units.positions(kinds)
    with torch.set_grad_enabled(grad):
        run = traced_by_source if sources else traced
        coordinates, output = run(encoder, pixels, tower, pooling, parts)
        check_sum(encoder, linearization, coordinates, output)
        with torch.autocast(encoder.device.type, enabled=False):
            contributions = linearization.contributions(coordinates, chosen)
            by_source, attention = _by_source(linearization, coordinates, chosen, contributions)
    if output.ndim == 2:  # one token, or what was made of several
        contributions, output = contributions[:, None], output[:, None]
        by_source = None if by_source is None else by_source[:, None]
    return Decomposition(
        contributions=contributions,
        output=output,
        units=linearization.units.table.iloc[chosen].reset_index(drop=True),
        coordinates=coordinates,
        linearization=linearization,
        sources=by_source,
        attention=attention,
        tokens=None if attention is None else tokens_of(encoder, parts, tower, pixels, attention.shape[-1]),
    )


def _by_source(
    linearization: Linearization,
    coordinates: Coordinates,
    units: Sequence[int],
    contributions: Float[Tensor, "n *t u d"],
) -> tuple[Tensor | None, Tensor | None]:
    """Contributions of the heads among units by source, and attention; None where that isn't asked for."""
    if not isinstance(coordinates, SourcedCoordinates):
        return None, None
    places = [place for place, unit in enumerate(units) if unit in linearization.units.of_field["z"]]
    of_heads = contributions[..., places, :]
    heads = [units[place] for place in places]
    by_source = source_contributions(linearization, coordinates, heads, of_heads) if heads else None
    return by_source, coordinates.attention
