"""How far heads and components speak a text, as a typed word asks for it.

A text's direction `w` is what tells it from other texts: the mean of its embeddings in a few frames, which
says less about how it was put than one does, less the same mean over texts of the dictionary. A unit speaks
it by the share of its variance that lies along `w`,

    value_u = wᵀ C_u w / tr C_u = Σ_k e_k ⟨φ_k, w⟩² / Σ_k e_k

with `e_k` and `φ_k` the eigenvalues and components of its contributions. Some units write along any text, as
those with few components do; so `above` is what is left of the share after its mean over the dictionary's
texts. On Picto's pictures that finds the heads that tell colours better than the share itself: ranked by it,
heads agree more with how well a linear map of their coordinates tells how red, green, blue, yellow or white a
picture is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from residual.errors import ResidualError
from residual.text.embedding import embed_prompts
from residual.workflows.exploration.asked import text_of
from residual.workflows.exploration.bounded import Bounded, once
from residual.workflows.exploration.parts import Parts
from residual.workflows.exploration.scores import unsuited

FRAMES = ("{}", "something {}", "a {} background", "a photo of something {}", "{} things")
_CENTRE, _COMPARED = 64, 512  # texts of the dictionary that the mean is of, and that units are compared on
_DRAWS = 400  # of random directions
_COMPONENTS, _LIKE = 30, 8
_EXAMPLES, _ALIKE = 3, 0.1  # texts to try; the cosine up to which two are of different kinds
_NOTHING = 1e-6  # of a text's length
_TEXTS = 2**24  # bytes of directions that are kept


class Texts:
    """Directions of texts, and who speaks along them.

    Args:
        parts: of the exploration.
    """

    def __init__(self, parts: Parts):
        self.parts = parts
        self._kept: Bounded[Tensor] = Bounded(_TEXTS)

    def embedding(self, text: str) -> Float[Tensor, " d"]:
        """The mean of a text's embeddings in the frames, normalised; float32, on the CPU.

        It isn't kept on disk: what someone types is theirs.

        Raises:
            ResidualError: no text, or no text tower.
        """
        text = text_of(text)
        return self._kept.get(text, lambda: self._embedded([text])[0])

    def direction(self, text: str) -> Float[Tensor, " d"]:
        """What tells a text from those of the dictionary, at length 1; see above.

        Raises:
            ResidualError: as `embedding`; or it is the mean of the dictionary.
        """
        left = self.embedding(text) - self._mean
        if not left.norm() > _NOTHING:
            raise ResidualError(f"{text_of(text)!r} says what all texts say: it has no direction of its own.")
        return normalize(left, dim=0)

    def text(self, text: str) -> dict[str, Any]:
        """See api/text.

        Raises:
            ResidualError: as `direction`.
        """
        text = text_of(text)
        direction, bases, named = self.direction(text), self.parts.bases, self.parts.units.name
        units, components = [], []
        usual = self._usual.tolist()
        for place, (unit, along) in enumerate(zip(bases.units, self._along(direction[None]), strict=True)):
            ratios = self._ratios[place]
            value = float(ratios @ along[:, 0].square())
            units.append({"unit": named(unit), "value": value, "above": value - usual[place]})
            components += [
                {
                    "unit": named(unit),
                    "index": index,
                    "value": ratio * cosine**2,
                    "ratio": ratio,
                    "cosine": abs(cosine),
                    "sign": 1 if cosine >= 0 else -1,
                }
                for index, (ratio, cosine) in enumerate(
                    zip(ratios.tolist(), along[:, 0].tolist(), strict=True)
                )
            ]
        components.sort(key=lambda each: -each["value"])
        return {
            "text": text,
            "units": units,
            "chance": self._chance,
            "components": components[:_COMPONENTS],
            "like": self._like(direction, text),
        }

    def words(self) -> dict[str, Any]:
        """See api/words: the text of the dictionary that each unit speaks most.

        A unit whose share of it is no more than its largest share of as many random directions has none; and
        no unit has one by a dictionary that can't describe the pictures.
        """
        shares, texts = self._shares(self._others), self.parts.dictionary.texts
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(len(texts), self.parts.bases.dim, generator=generator)
        chances = self._shares(normalize(drawn, dim=1)).amax(1).tolist()
        units = [
            {
                "unit": self.parts.units.name(unit),
                "text": texts[place] if value > chance and not unsuited(self.parts) else None,
                "value": value,
            }
            for unit, place, value, chance in zip(
                self.parts.bases.units,
                shares.argmax(1).tolist(),
                shares.amax(1).tolist(),
                chances,
                strict=True,
            )
        ]
        return {"units": units, "examples": self._examples(shares)}

    def _examples(self, shares: Float[Tensor, "u m"]) -> list[str]:
        """Texts that some head speaks most above what is usual of it, of different kinds."""
        units, others, chosen = self.parts.units, self._others, list[int]()
        heads = [place for place, unit in enumerate(self.parts.bases.units) if units.kind(unit) == "head"]
        above = (shares - self._usual[:, None])[heads or slice(None)].amax(0)
        for place in above.argsort(descending=True, stable=True).tolist():
            if len(chosen) < _EXAMPLES and (others[chosen] @ others[place]).abs().le(_ALIKE).all():
                chosen.append(place)
        return [self.parts.dictionary.texts[place] for place in chosen]

    def _embedded(self, texts: list[str]) -> Float[Tensor, "m d"]:
        with self.parts.running:
            return normalize(embed_prompts(self.parts.encoder, texts, FRAMES, keep=False), dim=1)

    @once
    def _mean(self) -> Float[Tensor, " d"]:
        """Of texts of the dictionary in the same frames, evenly spread over it."""
        texts = self.parts.dictionary.texts
        places = np.linspace(0, len(texts) - 1, min(_CENTRE, len(texts))).round().astype(int)
        return self._embedded([texts[place] for place in places]).mean(0)

    @once
    def _others(self) -> Float[Tensor, "m d"]:
        """Directions of the dictionary's own texts, about their mean; all zero of one text alone."""
        embeddings = self.parts.dictionary.embeddings.float().cpu()
        return normalize(embeddings - embeddings.mean(0), dim=1)

    @once
    def _ratios(self) -> list[Float[Tensor, " k"]]:
        """Each component's part of its unit's variance."""
        return [(values / (values.sum() or 1.0)).float() for values in self.parts.bases.eigenvalues]

    @once
    def _rows(self) -> list[Float[Tensor, "k d"]]:
        return [rows.float() for rows in self.parts.bases.components]

    def _along(self, directions: Float[Tensor, "m d"]) -> list[Float[Tensor, "k m"]]:
        """Cosines of every unit's components with directions."""
        return [rows @ directions.T for rows in self._rows]

    def _shares(self, directions: Float[Tensor, "m d"]) -> Float[Tensor, "u m"]:
        """Of every unit's variance along directions."""
        along = self._along(directions)
        return torch.stack([ratio @ each.square() for ratio, each in zip(self._ratios, along, strict=True)])

    @once
    def _usual(self) -> Float[Tensor, " u"]:
        """The mean of each unit's shares along the dictionary's texts."""
        others = self._others
        places = np.linspace(0, len(others) - 1, min(_COMPARED, len(others))).round().astype(int)
        return self._shares(others[torch.from_numpy(places)]).mean(1)

    @once
    def _chance(self) -> float:
        """The share that the best of all units has of a random direction: 95 % of draws stay below."""
        width = self.parts.bases.dim
        drawn = torch.randn(_DRAWS, width, generator=torch.Generator().manual_seed(0))
        return self._shares(normalize(drawn, dim=1)).amax(0).quantile(0.95).item()

    def _like(self, direction: Float[Tensor, " d"], text: str) -> list[str]:
        """The dictionary's texts that point the same way, the nearest first."""
        texts = self.parts.dictionary.texts
        cosines = self._others @ direction
        order = cosines.argsort(descending=True, stable=True)[: _LIKE + 1].tolist()
        return [texts[place] for place in order if texts[place] != text and cosines[place] > 0][:_LIKE]
