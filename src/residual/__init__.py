"""ResiDual: open up vision transformers and re-tune them with a few thousand numbers.

Every public name is listed once, below, with the module it lives in. Importing the package loads none of
them: no torch, no model library, until a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from residual.late import tell

if TYPE_CHECKING:
    from residual import adapters, data, encoders, heads, report, spectral, store, text, tracing, workflows
    from residual.adapters.adapted_encoder import AdaptedEncoder
    from residual.adapters.features import fit_features
    from residual.adapters.fit import fit
    from residual.adapters.methods.residual import ResiDual
    from residual.data import load_dataset
    from residual.encoders.encoder import Encoder
    from residual.encoders.load import load_encoder, wrap_encoder
    from residual.errors import ResidualError
    from residual.spectral.bases import SpectralBases
    from residual.spectral.fit import fit_bases
    from residual.store.base import MemoryStore
    from residual.store.disk import ResidualStore
    from residual.store.encode import encode_dataset
    from residual.tracing.decompose import Decomposition, decompose
    from residual.tracing.linearization import Linearization
    from residual.tracing.sources import source_scores
    from residual.tracing.trace import trace

    __version__: str

_HOMES = {
    "load_encoder": "encoders.load",
    "wrap_encoder": "encoders.load",
    "Encoder": "encoders.encoder",
    "decompose": "tracing.decompose",
    "Decomposition": "tracing.decompose",
    "Linearization": "tracing.linearization",
    "trace": "tracing.trace",
    "source_scores": "tracing.sources",
    "load_dataset": "data",
    "encode_dataset": "store.encode",
    "ResidualStore": "store.disk",
    "MemoryStore": "store.base",
    "fit_bases": "spectral.fit",
    "SpectralBases": "spectral.bases",
    "ResiDual": "adapters.methods.residual",
    "fit": "adapters.fit",
    "fit_features": "adapters.features",
    "AdaptedEncoder": "adapters.adapted_encoder",
    "ResidualError": "errors",
}
_ROOMS = (
    "data",
    "encoders",
    "tracing",
    "store",
    "spectral",
    "text",
    "heads",
    "adapters",
    "report",
    "workflows",
)

__all__ = [  # noqa: RUF022 (in the order in which they are used)
    "load_encoder",
    "wrap_encoder",
    "Encoder",
    "decompose",
    "Decomposition",
    "Linearization",
    "trace",
    "source_scores",
    "load_dataset",
    "encode_dataset",
    "ResidualStore",
    "MemoryStore",
    "fit_bases",
    "SpectralBases",
    "ResiDual",
    "fit",
    "fit_features",
    "AdaptedEncoder",
    "ResidualError",
    "encoders",
    "tracing",
    "data",
    "store",
    "spectral",
    "text",
    "heads",
    "adapters",
    "report",
    "workflows",
]

tell("AblatedEncoder", "residual.tracing.ablated")  # which `encoder.keep` makes


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"residual.{name}")
    if name in _HOMES:
        value = getattr(import_module(f"residual.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name == "__version__":
        return import_module("residual.libraries").version_of("residual-vit")
    raise AttributeError(f"module 'residual' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
