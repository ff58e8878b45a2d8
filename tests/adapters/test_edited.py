"""Edits by hand as an adapter: their definition, and folders that aren't theirs."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyImages, tiny_encoder

from residual import ResiDual, encode_dataset, fit_bases
from residual.adapters import Edited, UnitEdit, adapted_output
from residual.errors import ResidualError


@pytest.fixture(scope="module")
def store():
    return encode_dataset(tiny_encoder(4), TinyImages(20))


def edited(store, base=None) -> Edited:
    linearization, bases = store.linearization, fit_bases(store, ("head", "mlp"))
    if base is not None:
        linearization = base.adapted(linearization)
    means = linearization.contributions(store.coordinates).double().mean(0)
    rows, none = bases["1.2"].components[0][:2], torch.zeros(0, 12).double()
    unit = store.linearization.units.named("1.2")
    edits = [
        UnitEdit(unit, 0.5, means[unit], rows, torch.tensor([3.0, -1.0]).double()),
        UnitEdit(2, 0.0, means[2], none, torch.zeros(0).double()),
    ]
    return Edited(edits, "mean", base, 12, bases.origin)


@pytest.mark.parametrize("on_top", [False, True])
def test_an_edit_is_its_definition_and_comes_back(store, on_top):
    base = ResiDual(fit_bases(store, ("head",)), rank=2, seed=1) if on_top else None
    adapter = edited(store, base)
    own = store.linearization if base is None else base.adapted(store.linearization)
    c = own.contributions(store.coordinates).double()
    edit, off = adapter.edits
    centred = c[:, edit.unit] - edit.mean
    turned = c[:, edit.unit] + (centred @ edit.components.T * (edit.lambdas - 1)) @ edit.components
    expected = c.sum(1) - c[:, edit.unit] + 0.5 * turned + 0.5 * edit.mean
    expected = expected - c[:, off.unit] + off.mean
    assert torch.allclose(adapted_output(adapter, store).double(), expected, atol=1e-5)
    again = Edited.from_saved(*adapter.to_saved(), adapter.origin)
    assert torch.allclose(adapted_output(again, store), adapted_output(adapter, store), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("units", torch.tensor([2, 900]), "Units are 0 to 15"),
        ("units", torch.tensor([2, 2]), "edited once"),
        ("factors", torch.full((4,), torch.nan).double(), "NaN"),
        ("means", torch.zeros(2, 5).double(), r"a mean \(12,\)"),
        ("dim", 10**12, "a mean"),
        ("mode", "median", "mode is"),
        ("base", {"method": "edited", "choices": {}, "bases": None}, "isn't known"),
    ],
)
def test_what_is_no_edit_is_refused(store, name, value, match):
    tensors, choices = edited(store).to_saved()
    (choices if name in choices else tensors)[name] = value
    with pytest.raises(ResidualError, match=match):
        Edited.from_saved(tensors, choices, None).adapted(store.linearization)
