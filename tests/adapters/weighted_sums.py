"""The kernels of `residual.adapters.tensor_cores` beside plain sums.

`TRITON_INTERPRET=1 python weighted_sums.py cpu` interprets them and writes what came out as JSON;
`python weighted_sums.py cuda` compiles them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch  # noqa: E402
from test_fit import planted, planted_scores  # noqa: E402

import residual.adapters.steps  # noqa: E402
from residual.adapters import Coarse, FitSettings, ResiDual, fit_many  # noqa: E402
from residual.adapters.tensor_cores import WeightedSum  # noqa: E402
from residual.spectral import SpectralBases  # noqa: E402
from residual.text import ZeroShotClassifier  # noqa: E402

# Fits, samples, components, width: smaller than a tile, a little more than tiles, many spans.
SHAPES = [(1, 1, 1, 1), (3, 10, 70, 40), (2, 65, 129, 130), (1, 5, 1100, 9)]


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


def errors_of(fits: int, n: int, components: int, dim: int, device: str) -> dict[str, float]:
    """Relative errors of the kernels and of torch in float32, forward and of the gradient."""
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        made = torch.randn(*shape, generator=generator, device=device)
        return made * torch.rand(*shape, generator=generator, device=device) ** 4

    scores, lambdas = random(fits, n, components), random(fits, components).requires_grad_()
    directions, slopes, rest = random(components, dim), random(fits, n, dim), random(fits, n, dim)

    def plain(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        own = lambdas.detach().to(dtype).requires_grad_()
        output = (scores.to(dtype) * own[:, None]) @ directions.to(dtype) + rest.to(dtype)
        (gradient,) = torch.autograd.grad((output * slopes.to(dtype)).sum(), own)
        return output.detach(), gradient

    weigh = WeightedSum(directions)
    output = weigh(scores, lambdas, rest)
    assert output.shape == (fits, n, dim)
    assert torch.equal(output, weigh(scores, lambdas, rest))
    (gradient,) = torch.autograd.grad((output * slopes).sum(), lambdas)
    exact, single = plain(torch.float64), plain(torch.float32)
    return {
        "forward": error(output.detach(), exact[0]),
        "backward": error(gradient, exact[1]),
        "forward of torch": error(single[0], exact[0]),
        "backward of torch": error(single[1], exact[1]),
    }


def weights_of(kind: type[ResiDual], quick: bool, device: str) -> list[list[float]]:
    """Of three seeds, fitted at once, with the kernels or without."""
    residual.adapters.steps.WORTH_COMPILING = 0 if quick else float("inf")
    splits = planted(90), planted(40, 1)
    bases = SpectralBases([0, 1], splits[0][0].mean(0), [torch.eye(8)] * 2, [torch.ones(8)] * 2)
    adapters = [kind(bases, seed=seed) for seed in range(3)]
    classifier = ZeroShotClassifier(torch.eye(8)[:4] - 0.25 * torch.ones(8), list("abcd"))
    given = [planted_scores(adapters[0], *split) for split in splits]
    settings = [FitSettings(learning_rate=0.1, batch_size=32, epochs=1, seed=seed) for seed in range(3)]
    fit_many(adapters, *given, classifier, settings, device=device)
    return [adapter.lambdas.tolist() for adapter in adapters]


def everything(device: str) -> dict[str, list]:
    kinds = (ResiDual,) if device == "cpu" else (ResiDual, Coarse)  # interpreted, each takes seconds
    return {
        "errors": [errors_of(*shape, device=device) for shape in SHAPES],
        "weights": [[weights_of(kind, quick, device) for quick in (True, False)] for kind in kinds],
    }


if __name__ == "__main__":
    residual.adapters.steps.has_hopper = lambda device: True
    print(json.dumps(everything(sys.argv[1])))
