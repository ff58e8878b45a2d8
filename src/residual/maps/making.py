"""Maps of texts, of classes and of components, by where the heads of an encoder look.

Each is of a direction `w` in the output: a head's part of the score is `Σ_j ⟨a_j v_j M, w⟩` over the tokens
`j` that it attends to (Gandelsman et al. 2024, arXiv 2310.05916, section 5), and a map has those of the
patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from residual.encoders.changes import EncoderLike, checked_encoder
from residual.encoders.encoder import Encoder
from residual.encoders.pixels import Pixels
from residual.errors import ResidualError
from residual.finite import SHORTEST
from residual.heads.by_name import checked_heads
from residual.maps.maps import Maps, on_grid
from residual.spectral.bases import SpectralBases
from residual.text.classifier import ZeroShotClassifier
from residual.text.dictionary import read_texts
from residual.text.embedding import embed_prompts
from residual.tracing.decompose import class_number
from residual.tracing.sources import SourceScores, source_scores
from residual.tracing.units import Units, UnitsLike

NEUTRAL = "attributes"  # the list of texts that ships
_AT_ONCE = 2**26  # numbers of scores that are held
_TOKENS = 1024  # of a large picture

Labels = int | str | Sequence[int | str]


def text_maps(
    encoder: EncoderLike,
    pixels: Pixels,
    texts: str | Sequence[str],
    heads: UnitsLike | None = None,
    against: str | Sequence[str] | None = None,
    *,
    templates: Sequence[str] = ("{}",),
    separate: bool = False,
    signed: bool = True,
) -> Maps:
    """Where heads find what texts say: parts of the cosine between the output and a text's embedding.

    Args:
        encoder: one with a text tower; an `AdaptedEncoder` for maps of its adapter's output.
        pixels: from `encoder.pixels`.
        texts: one map each.
        heads: their sum; None for all of the encoder.
        against: texts whose mean embedding is taken off, so that the map is of what tells a text from these;
            none for the text alone. By default those of `NEUTRAL`: what all texts have in common, and
            pictures with them, tells nothing of this one (what that is worth: docs/maps.md).
        templates: prompts with `{}` where a text goes, averaged as for a classifier.
        separate: one map a head, text after text, in place of their sum.
        signed: False leaves out what each head finds against a text, which is then in `rest`: this shows
            better where a thing is, but tells it less from others.

    Raises:
        ResidualError: there is no text tower, no such head, or no map, see `source_scores`.

    Example:
        >>> import residual
        >>> encoder = residual.load_encoder("picto", device="cpu")
        >>> text_maps(encoder, torch.rand(2, 3, 64, 64), ["a red flag", "a cat"], heads=["7.2", "6.5"])
        Maps(2 pictures, 2 maps on 8 by 8 patches: a red flag, a cat)
    """
    plain = checked_encoder(encoder)
    directions = text_directions(plain, texts, against, templates)
    names = _named(_listed(texts), _listed(against))
    return direction_maps(plain, pixels, directions, names, heads, separate=separate, signed=signed)


def text_directions(
    encoder: EncoderLike,
    texts: str | Sequence[str],
    against: str | Sequence[str] | None = None,
    templates: Sequence[str] = ("{}",),
    *,
    keep: bool = True,
) -> Float[Tensor, "m d"]:
    """What `text_maps` are of: each text's embedding, less the mean of what it is held against.

    Args:
        encoder, texts, against, templates: see `text_maps`.
        keep: False leaves nothing of these texts on disk, as of what someone types.

    Raises:
        ResidualError: there is no text tower.
    """
    plain = checked_encoder(encoder)
    if not plain.has_text:
        raise ResidualError(
            f"{plain.name} ({plain.family.name}) has no text tower, so there are no maps of texts.",
            "There are maps of classes and of components.",
        )
    directions = _embedded(plain, _listed(texts), templates, keep)
    if against is None:
        return directions - _embedded(plain, read_texts(NEUTRAL)).mean(0)
    if others := _listed(against):
        return directions - _embedded(plain, others, templates, keep).mean(0)
    return directions


def class_maps(
    encoder: EncoderLike,
    pixels: Pixels,
    classifier: ZeroShotClassifier,
    classes: Labels | None = None,
    against: Labels | None = None,
    heads: UnitsLike | None = None,
    *,
    separate: bool = False,
    signed: bool = True,
) -> Maps:
    """Where heads find what speaks for a class: parts of its logit, as in `Decomposition.logits`.

    Args:
        encoder: whose features are classified; an `AdaptedEncoder` for maps of its adapter's output.
        pixels: from `encoder.pixels`.
        classifier: of texts, of class means, or an adapter's.
        classes: by number or name; None for all.
        against: classes whose mean logit is taken off: with one, the map is of what decides between two; none
            for the logit alone. By default all classes, which changes no prediction.
        heads, separate, signed: as in `text_maps`.

    Raises:
        ResidualError: there is no such class or head, or no map, see `source_scores`; or the classifier takes
            features of another width.
    """
    plain, names = checked_encoder(encoder), classifier.class_names
    if classifier.dim != plain.output_dim:
        raise ResidualError(
            f"The classifier takes features of width {classifier.dim}, {plain.name} gives {plain.output_dim}."
        )
    wanted = _numbers(range(len(names)) if classes is None else classes, names)
    every = range(len(names)) if len(names) > 1 else ()
    others = _numbers(every if against is None else against, names)
    directions = classifier.weights[wanted]
    if others:
        directions = directions - classifier.weights[others].mean(0)
    called = _named([names[k] for k in wanted], [] if against is None else [names[k] for k in others])
    how = {"separate": separate, "signed": signed, "of": "logit", "scale": classifier.scale}
    return direction_maps(plain, pixels, directions, called, heads, **how)


def component_maps(
    encoder: EncoderLike, pixels: Pixels, bases: SpectralBases, components: str | Sequence[str]
) -> Maps:
    """Where heads find what their principal components are of: parts of the scores on them.

    Args:
        encoder: of the bases.
        pixels: from `encoder.pixels`.
        bases: from `fit_bases`.
        components: each a head and a number, "11.4:0" for the first component of head 11.4.

    `total` is the score that `fit_bases` speaks of, without the head's mean; that is `rest`.

    Raises:
        ResidualError: bases of another encoder or of other tokens than it pools; no such head or component;
            or no map, see `source_scores`.
    """
    plain = checked_encoder(encoder)
    if bases.origin is not None:
        bases.origin.check_encoder(plain, "The bases")
    wanted = [components] if isinstance(components, str) else list(components)
    units = Units.of(plain.parts)
    each = [_component(name, units, bases) for name in wanted]
    of = [unit for unit, _, _ in each]
    heads = list(dict.fromkeys(of))
    rows = [heads.index(unit) for unit in of]
    at = [of[:place].count(unit) for place, unit in enumerate(of)]  # among those of its head
    directions = torch.zeros(len(heads), 1 + max(at, default=0), plain.output_dim, dtype=torch.float64)
    for row, column, (_, component, _) in zip(rows, at, each, strict=True):
        directions[row, column] = component
    values, elsewhere, given = [], [], []
    for scores in _scores(plain, pixels, directions, heads):
        cells, others = _places(scores)
        values.append(cells[:, rows, at])  # (n, m, rows, cols)
        elsewhere.append(others[:, rows, at])
        given.append(scores.totals[:, rows, at])
    means = torch.stack([mean for _, _, mean in each]).to(given[0])
    whole = torch.cat(given)
    rest = -means.expand_as(whole)
    return Maps(torch.cat(values), torch.cat(elsewhere), rest, whole + rest, tuple(wanted), "score")


def direction_maps(
    encoder: EncoderLike,
    pixels: Pixels,
    directions: Float[Tensor, "m d"],
    names: Sequence[str],
    heads: UnitsLike | None = None,
    *,
    separate: bool = False,
    signed: bool = True,
    of: str = "cosine",
    scale: float = 1.0,
) -> Maps:
    """Where heads find what speaks for directions of the output `o`: parts of `scale · ⟨o, w⟩ / ‖o‖`.

    The norm of the output is frozen, as that of the last LayerNorm.

    Args:
        encoder, heads, separate, signed: as in `text_maps`.
        pixels: from `encoder.pixels`.
        directions: one map each; of any length, which counts.
        names: of the maps.
        of: what the score is, see `Maps`.
        scale: of it.

    Raises:
        ResidualError: there is no such head, or no map, see `source_scores`.
    """
    encoder = checked_encoder(encoder)
    units = Units.of(encoder.parts)
    every = units.positions("head")
    chosen = every if heads is None else checked_heads(heads, units)
    parts: list[tuple[Tensor, ...]] = []
    for scores in _scores(encoder, pixels, directions, chosen):
        cells, others = _places(scores)  # (n, u, c, rows, cols), (n, u, c)
        given = scores.totals
        if not signed:
            given = given - cells.clamp(max=0).sum((-2, -1))
            cells = cells.clamp(min=0)
        norms = scores.output.norm(dim=-1).clamp(min=SHORTEST)
        total = scores.output @ directions.to(scores.output).T  # (n, c)
        if separate:
            cells, others, given = (each.transpose(1, 2).flatten(1, 2) for each in (cells, others, given))
            total = total.repeat_interleave(len(chosen), 1)
        else:
            cells, others, given = (each.sum(1) for each in (cells, others, given))
        factor = scale / norms
        found = (cells, others, total - given, total)
        parts.append(tuple(each * factor.view(-1, *[1] * (each.ndim - 1)) for each in found))
    if separate:
        names = [f"{units.name(head)}: {name}" for name in names for head in chosen]
    return Maps(*(torch.cat(each) for each in zip(*parts, strict=True)), tuple(names), of)


def _scores(
    encoder: Encoder, pixels: Pixels, directions: Tensor, units: Sequence[int]
) -> Iterator[SourceScores]:
    """Of some pictures at a time, so that scores of many classes fit into memory."""
    most = max(1, _AT_ONCE // (len(units) * directions.shape[-2] * _TOKENS))
    for some in encoder.checked_pixels(pixels).split(most):
        yield source_scores(encoder, some, directions, units)


def _places(scores: SourceScores) -> tuple[Float[Tensor, "n u c rows cols"], Float[Tensor, "n u c"]]:
    """What of the scores is of patches, on their grid; and what is of other tokens.

    Raises:
        ResidualError: the patches are on no grid.
    """
    values, patches = scores.values, set(scores.tokens.patches)
    others = [place for place in range(values.shape[-1]) if place not in patches]
    return on_grid(values, scores.tokens), values[..., others].sum(-1)


def _embedded(
    encoder: Encoder, texts: Sequence[str], templates: Sequence[str] = ("{}",), keep: bool = True
) -> Float[Tensor, "m d"]:
    return normalize(embed_prompts(encoder, texts, templates, keep=keep), dim=1)


def _listed(texts: str | Sequence[str] | None) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts or ())


def _numbers(classes: Labels, names: Sequence[str]) -> list[int]:
    each = [classes] if isinstance(classes, int | str) else list(classes)
    return [class_number(label, names) for label in each]


def _named(names: Sequence[str], others: Sequence[str]) -> list[str]:
    if not others:
        return list(names)
    less = others[0] if len(others) == 1 else f"{len(others)} others"
    return [f"{name} against {less}" for name in names]


def _component(name: str, units: Units, bases: SpectralBases) -> tuple[int, Tensor, Tensor]:
    """The head of a component, its direction, and what the head's mean scores on it."""
    head, colon, number = name.partition(":")
    if not colon or not number.strip().isdecimal():
        raise ResidualError(f"A component is a head and a number, as '11.4:0'; got {name!r}.")
    (unit,) = checked_heads(head, units)
    (place,), count = bases.places(unit), int(number)
    rows = bases.components[place]
    if count >= len(rows):
        raise ResidualError(
            f"There is no component {count} of head {units.name(unit)}: they are 0 to {len(rows) - 1}."
        )
    return unit, rows[count], bases.means[place] @ rows[count]
