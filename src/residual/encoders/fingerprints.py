"""What tells an encoder's weights from others: a digest of them as bfloat16.

So the same model in float32 and in bfloat16 is the same. In float16 it isn't: weights that were rounded twice
may differ in their last bit. A second digest, of weights rounded to float16 and then to bfloat16, is the same
of a model in float32 and in float16. Files of adapters hold both, and either will do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from residual.encoders.wrappers import adapters_in
from residual.hashing import bit_sums, bit_sums_begun, joined, sha256


class Fingerprints:
    """Digests of a model's weights, each kept for as long as no weight has another bit."""

    def __init__(self):
        self._kept: dict[str, tuple[Any, str]] = {}

    def begun(
        self,
        module: nn.Module,
        which: str,
        settings: str,
        chosen: Callable[[str], bool],
        more: Iterable[tuple[str, Tensor]] = (),
    ) -> Callable[[], str]:
        """Gives SHA-256 over settings and the weights as they are now when it is called, seconds for a large
        model; where that is known already, a GPU isn't waited for meanwhile.

        Args:
            module: the model.
            which: "image", "text", or "rounded", which is the other digest of the former.
            settings: what else its output depends on; adapters of peft add theirs.
            chosen: whether a parameter or buffer counts, by its name.
            more: buffers that no state_dict holds.
        """
        adapters = {name: how for name, how in adapters_in(module).items() if chosen(name)}
        settings += f" {adapters}" if adapters else ""
        held = dict(more) | module.state_dict()
        weights = {name: value.detach() for name, value in sorted(held.items()) if chosen(name)}
        about = [f"{name} {tuple(value.shape)}" for name, value in weights.items()]
        sums = bit_sums_begun(joined(weights.values()))

        def digest() -> str:
            state = settings, about, sums()
            if which not in self._kept or self._kept[which][0] != state:
                make = _rounded if which == "rounded" else _exact
                self._kept[which] = state, make(settings, dict(zip(about, weights.values(), strict=True)))
            return self._kept[which][1]

        return digest


def _exact(settings: str, weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(settings.encode())
    for words, value in weights.items():
        digest.update(words.encode())
        rounded = value.to("cpu", torch.bfloat16).float()
        digest.update(rounded.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _rounded(settings: str, weights: dict[str, Tensor]) -> str:
    """Of sums over the bits, which is as good as instant."""
    sums = [bit_sums([value.to(torch.float16).to(torch.bfloat16)]) for value in weights.values()]
    return sha256(f"{settings} {[*weights]} {sums}".encode())


def precision_hint(dtype: torch.dtype, then: str) -> str:
    """That weights may be others for their precision alone, and the way out; empty where they can't be."""
    if dtype != torch.float16:
        return ""
    return (
        "If it is the same model, its float16 is why: load it in float32 or in bfloat16, and for float16 say "
        f"{then} then."
    )
