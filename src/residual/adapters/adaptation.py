"""An adapter as a change of the contributions of an encoder's units, see `residual.encoders.changes`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from residual.adapters.adapter import Adapter
from residual.files import plain_number
from residual.hashing import sha256
from residual.tracing.linearization import Linearization
from residual.tracing.units import Units


@dataclass(frozen=True, eq=False)
class Adaptation:
    """Its `str` tells it from others by its method, choices and numbers, the same once saved and loaded."""

    adapter: Adapter
    of_pooled: ClassVar[bool] = True

    def applied(self, linearization: Linearization, own: Units) -> Linearization:
        """See `Adapter.adapted`."""
        return self.adapter.adapted(linearization)

    def __str__(self) -> str:
        tensors, choices = self.adapter.to_saved()
        saved = [json.dumps(choices, sort_keys=True, default=plain_number).encode()]
        for name, tensor in sorted(tensors.items()):
            values = tensor.detach().cpu().contiguous()
            saved += [f"{name} {values.dtype} {tuple(values.shape)}".encode(), values.numpy().tobytes()]
        return f"adapted by {self.adapter.method} {sha256(*saved)}"
