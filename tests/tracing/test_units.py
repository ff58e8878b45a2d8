"""Units in every form that names them, by one resolver, wherever units are taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import TinyImages, tiny_encoder

from residual import encode_dataset, fit_bases
from residual.adapters import ResiDual
from residual.errors import ResidualError
from residual.heads import ablate, correct_by_selection, correct_by_unit
from residual.spectral import SpectralBases
from residual.text import ZeroShotClassifier
from residual.tracing import Units

UNITS = Units(layers=3, heads=4)
TABLE = UNITS.table
# Twice the same two units, in every form.
SPELLINGS = {
    "names": ["1.2", "mlp.2"],
    "names in an array": np.array([" 1.2", "mlp.2 "]),
    "positions": [10, 3],
    "a tensor": torch.tensor([10, 3]),
    "rows": [TABLE.iloc[10], TABLE.iloc[3].to_dict()],
    "rows without a position": [TABLE.iloc[10].drop("unit"), {"kind": "mlp", "layer": np.int64(2)}],
    "a frame": TABLE.iloc[[10, 3]],
    "a frame without positions": TABLE.iloc[[10, 3]].drop(columns="unit"),
    "a column": TABLE["unit"].iloc[[10, 3]],
    "mixed": ["1.2", TABLE.iloc[3]],
}
MASKS = [TABLE["kind"] == "head", (TABLE["kind"] == "head").tolist(), torch.arange(16) >= 4]


@pytest.fixture(scope="module")
def store():
    return encode_dataset(tiny_encoder(), TinyImages(12))


@pytest.mark.parametrize("units", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_is_the_same(units):
    assert UNITS.checked(units) == [10, 3]


def test_one_unit_masks_and_names():
    for one in ("1.2", 10, np.int16(10), torch.tensor(10), TABLE.iloc[10], TABLE.iloc[10].to_dict()):
        assert UNITS.checked(one) == [10]
    for mask in MASKS:
        assert UNITS.checked(mask) == list(range(4, 16))
    pooled = Units(2, 3, pool_mlp=True)
    for every in (UNITS, pooled):
        names = [every.name(unit) for unit in range(len(every))]
        assert every.checked(names) == every.checked(every.table) == list(range(len(every)))
    assert pooled.checked("mlp.2") == [3]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("3.0", r"There is no head 3\.0: layers are 0 to 2 and heads 0 to 3"),
        ("mlp.3", r"There is no MLP 3: layers are 0 to 2"),
        (
            "MLP2",
            r"Unknown unit 'MLP2'\. Did you mean 'mlp\.2'.*'emb', 'mlp\.0' to 'mlp\.2', heads as.* 0 to 15",
        ),
        ("embedding", r"Did you mean 'emb'"),
        (-1, r"Units are 0 to 15, got \[-1\]"),
        (["1.2", 16], r"Units are 0 to 15, got \[16\]"),
        (True, r"Units are names \('emb'.*or a mask of 16 booleans; got True"),
        ({"name": "1.2"}, "A row of a units table has unit, kind, layer, head"),
        (Units(2, 6).table.iloc[10], r"Unit 10 is '1\.2' here, and '1\.1' in the table"),
    ],
)
def test_what_is_no_unit(wrong, message):
    with pytest.raises(ResidualError, match=message):
        UNITS.checked(wrong)


def test_all_that_takes_units_takes_them_by_name(store, tmp_path):
    units, (head, mlp) = store.linearization.units, (10, 3)
    wanted = store.contributions(units=[head, mlp])
    for spelling in SPELLINGS.values():
        assert torch.equal(store.contributions(units=spelling), wanted)
    whole = store.contributions()
    assert torch.equal(ablate(whole, ["1.2", "mlp.2"], units=units), ablate(whole, [head, mlp]))
    on_disk = encode_dataset(tiny_encoder(), TinyImages(12), tmp_path / "store")
    assert torch.equal(on_disk.contributions(units=["1.2"]), on_disk.contributions(units=[head]))
    classifier = ZeroShotClassifier(torch.randn(4, 12), store.class_names)
    by_name, by_place = (
        correct_by_selection(store, classifier, {"one": keep}) for keep in (["1.2", "mlp.2"], [head, mlp])
    )
    assert torch.equal(by_name, by_place)
    assert torch.equal(correct_by_unit(store, classifier, "1.2"), correct_by_unit(store, classifier, [head]))
    bases = fit_bases(store, ("mlp", "head"))
    bases.save(tmp_path / "bases.safetensors")
    for of in (bases, SpectralBases.load(tmp_path / "bases.safetensors")):
        assert of["1.2"].units == of[units.table.iloc[10]].units == (head,)
        assert torch.equal(of[["mlp.2", "1.2"]].components[1], bases.select([head]).components[0])
    assert [own.units for own in bases][:2] == [(1,), (2,)]
    adapter = ResiDual(bases)
    assert torch.equal(adapter.lambdas_of("1.2"), adapter.lambdas_of(head))
    with pytest.raises(ResidualError, match=r"No basis for units \[0\]"):
        adapter.lambdas_of("emb")


def test_names_where_only_positions_are_known(store):
    by_hand = SpectralBases([7], torch.zeros(1, 3), [torch.eye(3)[:2]], [torch.tensor([2.0, 1.0])])
    assert by_hand[7].units == by_hand[TABLE.iloc[7]].units == (7,)
    for asked in (lambda: by_hand["0.3"], lambda: ablate(store.contributions(), ["0.3"])):
        with pytest.raises(ResidualError, match=r"Which unit '0\.3' is can't be told: .* Give positions"):
            asked()
