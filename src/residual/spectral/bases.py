"""One principal basis a unit: an object that is fitted (see `fit.py`), made by hand, saved and loaded."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from residual.encoders.encoder import Encoder
from residual.errors import OtherPoolingError, ResidualError
from residual.files import shareable, shareable_split
from residual.outputs import check_file
from residual.products import BASES
from residual.spectral.pca import resized, spanning
from residual.store.base import Store
from residual.store.form import FormError, check_form
from residual.tensor_files import load_tensors, save_tensors
from residual.tracing.linearization import Linearization
from residual.tracing.token_choice import resolve
from residual.tracing.units import Units, UnitsLike, unit_positions
from residual.versions import check_fields, told_by_version

_ORTHONORMAL = 1e-4
_MOST = 4096  # layers, and heads in one
_ORIGIN = {"encoder_name": str, "fingerprint": str, "split": str, "datasets": [str], "samples": int}
_TENSORS = ("units", "ranks", "means", "components", "eigenvalues")


@dataclass(frozen=True)
class Origin:
    """Where bases come from; what is known of it is compared before they are used.

    `pooling` tells which tokens' contributions they are of, see `decompose`.
    """

    encoder_name: str
    fingerprint: str
    centering: str
    datasets: tuple[str, ...]
    samples: int
    pooling: str = "own"

    @classmethod
    def of_json(cls, held: Any, where: str | Path) -> Origin:
        """Read what `to_json` made, by way of the file `where`.

        Raises:
            FormError: it isn't of that form.
            LaterVersionError: it has other fields.
        """
        check_form(held, _ORIGIN, "the origin")
        check_fields(held, (*_ORIGIN, "pooling"), where, "the origin")
        pooling = held.get("pooling", "own")
        check_form(pooling, str, "the pooling")
        centering, datasets = held["split"], tuple(held["datasets"])
        return cls(held["encoder_name"], held["fingerprint"], centering, datasets, held["samples"], pooling)

    def to_json(self) -> dict[str, Any]:
        """As files hold it: the centering by its older name, no path of the user's machine."""
        told = asdict(self) | {
            "encoder_name": shareable(self.encoder_name),
            "datasets": list(map(shareable_split, self.datasets)),
        }
        return {"split" if name == "centering" else name: value for name, value in told.items()}

    @classmethod
    def of_store(cls, store: Store) -> Origin:
        """What a store says of itself; no sample is counted yet."""
        return cls(store.encoder_name, store.fingerprint, store.centering, (store.dataset,), 0, store.pooling)

    def is_of(self, other: Store | Encoder | Origin) -> bool:
        """Whether an encoder, or a store's, has these weights and this centering of its norm's mean."""
        return (self.fingerprint, self.centering) == (other.fingerprint, other.centering)

    def check_store(self, store: Store) -> None:
        """Refuse a store of another encoder, with another centering of its norm's mean, or of other tokens.

        Raises:
            ResidualError: it is.
        """
        if not self.is_of(store):
            raise ResidualError(f"The bases are of {self}, the store of {Origin.of_store(store)}.")
        if self.pooling != store.pooling:
            raise OtherPoolingError(
                f"The bases are of pooling {self.pooling!r} ({', '.join(self.datasets)}), the store "
                f"{store.dataset} is of pooling {store.pooling!r}: components of other tokens' contributions "
                "aren't those of these."
            )

    def check_encoder(self, encoder: Encoder, what: str) -> None:
        """Refuse bases that aren't of an encoder, or aren't of the tokens that it pools itself.

        Raises:
            ResidualError: they aren't; `what` names them.
        """
        if not self.is_of(encoder):
            raise ResidualError(
                f"{what} are of another encoder: {self}, not {encoder.name} (weights "
                f"{encoder.fingerprint[:8]}, centering {encoder.centering!r})."
            )
        if not resolve(self.pooling, encoder.parts, encoder.name).own:
            raise OtherPoolingError(
                f"{what} are of pooling {self.pooling!r}, and {encoder.name} pools otherwise itself ('own')."
            )

    def check_shared(self, other: Origin) -> None:
        """Refuse what can't be taken together with this.

        Raises:
            ResidualError: it is of another encoder, centering or pooling.
        """
        if not self.is_of(other) or self.pooling != other.pooling:
            both = (f"{', '.join(of.datasets)} is of {of}, pooling {of.pooling!r}" for of in (self, other))
            raise ResidualError(f"Stores of different encoders can't share bases: {'; '.join(both)}.")

    def __str__(self) -> str:
        return f"{self.encoder_name} (weights {self.fingerprint[:8]}, centering {self.centering!r})"


class SpectralBases:
    """Mean, components and eigenvalues of some units' contributions.

    Args:
        units: positions in the order of all units, one a basis; no unit twice.
        means: `(r, d)`.
        components: for each unit `(k_i, d)`, orthonormal rows.
        eigenvalues: for each unit `(k_i,)`, variances in descending order.
        all_means: `(u, d)`, means of all units of the encoder, with a basis or without; needed only to put
            units without a basis at their mean.
        origin: where they come from, if known.
        structure: all units of the encoder, if known: by it units are called "7.2" (see `Units`).

    Raises:
        ResidualError: shapes disagree, a unit comes twice, means aren't finite, components aren't
            orthonormal, or eigenvalues are negative, not finite or not in descending order.

    Example:
        >>> import torch
        >>> from residual import SpectralBases
        >>> SpectralBases([7], torch.zeros(1, 3), [torch.eye(3)[:2]], [torch.tensor([2.0, 1.0])])
        SpectralBases(1 units from 7 to 7, 2 components of width 3)
    """

    def __init__(
        self,
        units: UnitsLike,
        means: Tensor,
        components: Sequence[Tensor],
        eigenvalues: Sequence[Tensor],
        all_means: Tensor | None = None,
        origin: Origin | None = None,
        structure: Units | None = None,
    ):
        self.structure = structure
        self.units = tuple(unit_positions(units, of=structure))
        self.means: Float[Tensor, "r d"] = _double(means)
        self.components = tuple(_double(rows) for rows in components)
        self.eigenvalues = tuple(_double(values) for values in eigenvalues)
        self.all_means = None if all_means is None else _double(all_means)
        self.origin = origin
        self._check()

    @property
    def dim(self) -> int:
        """Width of the output, `d`."""
        return self.means.shape[1]

    @property
    def ranks(self) -> tuple[int, ...]:
        """How many components each unit has."""
        return tuple(len(rows) for rows in self.components)

    def __len__(self) -> int:
        return len(self.units)

    def __repr__(self) -> str:
        where = "" if self.origin is None else f", of {self.origin.encoder_name}"
        return f"SpectralBases({_span(self.units)}, {sum(self.ranks)} components of width {self.dim}{where})"

    def __getitem__(self, units: UnitsLike) -> SpectralBases:
        """As `select`: `bases["7.2"].components[0]` are the components of that head."""
        return self.select(units)

    def select(self, units: UnitsLike) -> SpectralBases:
        """The bases of those units only (see `Units.checked`), in the order given.

        Raises:
            ResidualError: a unit has none; one is named, or there is a mask, and the encoder's units aren't
                known: in bases that were made by hand, or saved by version 0.1.
        """
        chosen = self.places(units)
        components, eigenvalues = (
            [each[place] for place in chosen] for each in (self.components, self.eigenvalues)
        )
        return self._with(components, eigenvalues, chosen)

    def __iter__(self) -> Iterator[SpectralBases]:
        """The bases of each unit, one after the other."""
        return (self.select(unit) for unit in self.units)

    def places(self, units: UnitsLike) -> list[int]:
        """Where among the units with a basis some units are.

        Raises:
            ResidualError: as `select`.
        """
        count = None if self.all_means is None else len(self.all_means)
        wanted = unit_positions(units, count, self.structure)
        places = {unit: place for place, unit in enumerate(self.units)}
        if missing := [unit for unit in wanted if unit not in places]:
            raise ResidualError(f"No basis for units {missing}; there are bases for {_span(self.units)}.")
        return [places[unit] for unit in wanted]

    def _with(
        self, components: Sequence[Tensor], eigenvalues: Sequence[Tensor], chosen: Sequence[int] | None = None
    ) -> SpectralBases:
        """These with other components, of all units or of those at some places."""
        places = range(len(self)) if chosen is None else chosen
        units, means = [self.units[place] for place in places], self.means[list(places)]
        about = self.all_means, self.origin, self.structure
        return SpectralBases(units, means, components, eigenvalues, *about)

    def resized(self, counts: Sequence[int]) -> SpectralBases:
        """With so many components of each unit: the first, or after them others that have no variance.

        A fit leaves out components without variance. Where they are to count, as among the weights of the
        published code, `min(n, d)` is what the usual PCA of `n` samples keeps.

        Raises:
            ResidualError: a count is below 1 or above the width, or there isn't one for each unit.
        """
        if len(counts) != len(self):
            raise ResidualError(f"{len(self)} units need as many counts of components, got {len(counts)}.")
        each = [resized(*of) for of in zip(self.components, self.eigenvalues, counts, strict=True)]
        components, eigenvalues = zip(*each, strict=True)
        return self._with(components, eigenvalues)

    def spanning(self, linearization: Linearization) -> SpectralBases:
        """With others without variance after the components: all that a unit can write is in their span.

        Of fewer samples than a unit has features, a fit knows a part of that only.
        """
        wide = {"head": linearization.head_width, "mlp": linearization.width, "emb": linearization.width}
        each, same = [], True
        for unit, *own in zip(self.units, self.components, self.eigenvalues, strict=True):
            features = (wide[linearization.units.kind(unit)] + 2) * linearization.pool_heads
            if len(own[0]) < min(features, self.dim):
                own, same = spanning(*own, linearization.matrix(unit)), False
            each.append(own)
        if same:
            return self
        components, eigenvalues = zip(*each, strict=True)
        return self._with(components, eigenvalues)

    def check_store(self, store: Store) -> None:
        """Refuse a store of another encoder, with another centering of its norm's mean, or of other tokens.

        Raises:
            ResidualError: it is, and both are known.
        """
        if self.origin is not None:
            self.origin.check_store(store)

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write as safetensors, with the origin beside the numbers; see `check_file` for what is refused."""
        origin = None if self.origin is None else self.origin.to_json()
        save_tensors(check_file(path, BASES, overwrite), "bases", self.to_tensors(), {"origin": origin})

    @classmethod
    def load(cls, path: str | Path) -> SpectralBases:
        """Read what `save` wrote.

        Raises:
            ResidualError: the file isn't there, is damaged, or holds something else.
        """
        tensors, note = load_tensors(path, "bases", ("origin",))
        with told_by_version(path):
            with whole_note(path):
                check_form(note, {"origin": object}, "the note")
                origin = None if note["origin"] is None else Origin.of_json(note["origin"], path)
                if "ranks" not in tensors:
                    raise FormError("there are no ranks")
            check_fields(tensors, (*_TENSORS, "all_means", "structure"), path)
            return cls.from_tensors(tensors, tensors["ranks"], origin)

    def to_tensors(self) -> dict[str, Tensor]:
        """All that there is of them but the origin: units and their ranks, and the rest unit after unit."""
        tensors = {
            "units": torch.tensor(self.units),
            "ranks": torch.tensor(self.ranks),
            "means": self.means,
            "components": torch.cat(self.components),
            "eigenvalues": torch.cat(self.eigenvalues),
        }
        if self.all_means is not None:
            tensors["all_means"] = self.all_means
        if self.structure is not None:
            tensors["structure"] = torch.tensor(astuple(self.structure), dtype=torch.int64)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], ranks: Tensor, origin: Origin | None) -> SpectralBases:
        """What `to_tensors` took apart.

        Raises:
            ResidualError: they don't belong together; and as the constructor.
        """
        axes = {"units": 1, "means": 2, "components": 2, "eigenvalues": 1}
        fits = ranks.ndim == 1 and all(name in tensors and tensors[name].ndim == axes[name] for name in axes)
        counts = ranks.tolist() if fits and not ranks.is_floating_point() else [-1]
        lengths = {len(tensors[name]) for name in ("components", "eigenvalues")} if fits else set()
        if min(counts, default=-1) < 0 or lengths != {sum(counts)}:
            raise ResidualError("The tensors of the bases don't belong together: their shapes differ.")
        return cls(
            units=tensors["units"].tolist(),
            means=tensors["means"],
            components=tensors["components"].split(counts),
            eigenvalues=tensors["eigenvalues"].split(counts),
            all_means=tensors.get("all_means"),
            origin=origin,
            structure=_structure(tensors.get("structure")),
        )

    def _check(self) -> None:
        if not self.units or len(set(self.units)) < len(self.units) or min(self.units) < 0:
            raise ResidualError(f"Bases need one or more different units, none negative; got {self.units}.")
        counts = {len(self.units), len(self.means), len(self.components), len(self.eigenvalues)}
        if len(counts) > 1:
            raise ResidualError(
                f"Bases of {len(self.units)} units need as many means, components and eigenvalues; got "
                f"{len(self.means)}, {len(self.components)} and {len(self.eigenvalues)}."
            )
        for name, values in (("means", self.means), ("all_means", self.all_means)):
            if values is not None and (values.ndim != 2 or not values.isfinite().all()):
                raise ResidualError(
                    f"The {name} of bases must be (units, d) and finite; got NaN, infinity or "
                    f"the shape {tuple(values.shape)}."
                )
        if self.all_means is not None and (
            self.all_means.shape[1] != self.dim or len(self.all_means) <= max(self.units)
        ):
            raise ResidualError(
                f"all_means must be (all units, {self.dim}) and reach unit {max(self.units)}; got "
                f"{tuple(self.all_means.shape)}."
            )
        every = None if self.structure is None else len(self.structure)
        if self.all_means is not None and len(self.all_means) != (every or len(self.all_means)):
            raise ResidualError(f"all_means are of {len(self.all_means)} units, the structure of {every}.")
        for unit, rows, values in zip(self.units, self.components, self.eigenvalues, strict=True):
            _check_basis(unit, rows, values, self.dim)


def _structure(saved: Tensor | None) -> Units | None:
    """Layers, heads and whether a pool has an MLP, as `to_tensors` has them."""
    if saved is None:
        return None
    fits = saved.shape == (3,) and not saved.is_floating_point()
    layers, heads, pool_mlp = saved.tolist() if fits else (0, 0, 0)
    if not (0 < layers <= _MOST and 0 < heads <= _MOST and pool_mlp in (0, 1)):
        raise ResidualError("The structure of the bases isn't layers, heads, and 0 or 1.")
    return Units(layers, heads, bool(pool_mlp))


@contextmanager
def whole_note(path: str | Path) -> Generator[None]:
    """Turn what isn't of the form of a note into an error that names the file."""
    try:
        yield
    except FormError as error:
        raise ResidualError(f"{path} isn't what was written: {error}.") from error


def _check_basis(unit: int, rows: Tensor, values: Tensor, dim: int) -> None:
    if rows.ndim != 2 or rows.shape[1] != dim or len(rows) > dim or values.shape != rows.shape[:1]:
        raise ResidualError(
            f"The basis of unit {unit} needs components (k, {dim}), k at most {dim}, and eigenvalues (k,); "
            f"got {tuple(rows.shape)} and {tuple(values.shape)}."
        )
    miss = (rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype)).abs().amax() if len(rows) else 0.0
    if not miss <= _ORTHONORMAL:
        raise ResidualError(f"The components of unit {unit} aren't orthonormal: off by {float(miss):.1e}.")
    if not (values.isfinite().all() and (values >= 0).all() and (values.diff() <= 0).all()):
        raise ResidualError(f"The eigenvalues of unit {unit} must be finite, not negative, and descend.")


def _double(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64)


def _span(units: tuple[int, ...]) -> str:
    return f"{len(units)} units from {min(units)} to {max(units)}"
