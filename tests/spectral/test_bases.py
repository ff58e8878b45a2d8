"""Bases from small coordinates are the plain PCA of contributions; made by hand, saved, refused."""

from __future__ import annotations

import pytest
import torch
from families import CASES
from tiny import TinyImages, tiny_encoder

from residual import wrap_encoder
from residual.errors import ResidualError
from residual.spectral import SpectralBases, fit_bases, fit_output, pca
from residual.spectral.unit_moments import UnitMoments
from residual.store.encode import encode_dataset
from residual.tensor_files import load_tensors, save_tensors


@pytest.mark.parametrize("centering", ["shared", "own"])
@pytest.mark.parametrize("sizes", [{}, {"output": 40}, {"head_width": 4, "output": 20}])
def test_equal_to_plain_pca_of_contributions(centering, sizes):
    store = encode_dataset(tiny_encoder(centering=centering, **sizes), TinyImages(n=70))
    bases = fit_bases(store, kinds=("emb", "mlp", "head"))
    assert bases.units == tuple(store.units["unit"])
    for place, unit in enumerate(bases.units):
        plain = pca(store.contributions(units=[unit])[:, 0])
        torch.testing.assert_close(bases.means[place], plain.mean)
        torch.testing.assert_close(bases.eigenvalues[place], plain.eigenvalues, rtol=1e-6, atol=0)
        cosines = (bases.components[place] * plain.components).sum(1).abs()
        torch.testing.assert_close(cosines, torch.ones_like(cosines), rtol=1e-6, atol=0)
        assert bases.ranks[place] <= min(store.linearization.matrix(unit).shape[0], bases.dim)
    torch.testing.assert_close(bases.all_means, store.contributions().mean(0))


def test_heads_are_the_default_and_several_stores_count_as_one():
    encoder = tiny_encoder()
    first, second = (encode_dataset(encoder, TinyImages(n=n, seed=n)) for n in (30, 50))
    bases = fit_bases([first, second])
    assert bases.units == tuple(range(4, 16))
    contributions = torch.cat([first.contributions(), second.contributions()])
    plain = pca(contributions[:, 7])
    torch.testing.assert_close(bases.eigenvalues[3], plain.eigenvalues, rtol=1e-6, atol=0)
    torch.testing.assert_close(bases.all_means, contributions.mean(0))
    assert bases.origin.samples == 80
    assert bases.origin.datasets == ("tiny/train", "tiny/train")
    with pytest.raises(ResidualError, match="Stores of different encoders can't share bases"):
        fit_bases([first, encode_dataset(tiny_encoder(seed=1), TinyImages())])
    with pytest.raises(ResidualError, match=r"centering 'shared'.*centering 'own'"):
        fit_bases([first, encode_dataset(tiny_encoder(centering="own"), TinyImages())])
    others = [first, encode_dataset(tiny_encoder(seed=1), TinyImages())]
    with pytest.raises(ResidualError, match="Stores of different encoders can't share bases"):
        fit_output(others)
    torch.testing.assert_close(fit_output([first, second]).mean, contributions.sum(1).mean(0))
    for fit in (fit_bases, fit_output):
        with pytest.raises(ResidualError, match="at least one store"):
            fit([])
    with pytest.raises(ResidualError, match="Unknown kinds of unit: 'heads'"):
        fit_bases(first, kinds=("heads",))
    with pytest.raises(ResidualError, match="at least 2 samples, got 1"):
        fit_bases(first.subset([0]))


def test_a_silent_head_has_no_components():
    encoder = tiny_encoder(centering="own")
    block = encoder.parts.blocks[1]
    block.attention_output.weight.data[:, 8:16] = 0
    block.attention_output.bias.data.zero_()
    bases = fit_bases(encode_dataset(encoder, TinyImages()))
    assert bases.ranks[4 + 1] == 0


def test_save_and_load(tmp_path):
    store = encode_dataset(tiny_encoder(), TinyImages())
    bases = fit_bases(store, kinds=("head", "mlp"))
    assert repr(bases) == "SpectralBases(15 units from 1 to 15, 156 components of width 12, of tiny)"
    bases.save(tmp_path / "bases.safetensors")
    loaded = SpectralBases.load(tmp_path / "bases.safetensors")
    assert (loaded.units, loaded.origin) == (bases.units, bases.origin)
    torch.testing.assert_close(loaded.means, bases.means, rtol=0, atol=0)
    torch.testing.assert_close(loaded.all_means, bases.all_means, rtol=0, atol=0)
    for got, expected in zip(loaded.components, bases.components, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    store.linearization.save(tmp_path / "other.safetensors")
    with pytest.raises(ResidualError, match="holds no bases but linearization"):
        SpectralBases.load(tmp_path / "other.safetensors")


def test_made_by_hand_and_selected():
    eye = torch.eye(4)
    bases = SpectralBases(
        units=[5, 2],
        means=torch.zeros(2, 4),
        components=[eye[:3], eye[2:]],
        eigenvalues=[torch.ones(3)] * 1 + [torch.ones(2)],
    )
    assert (len(bases), bases.dim, bases.ranks) == (2, 4, (3, 2))
    chosen = bases.select([2])
    assert (chosen.units, chosen.ranks) == ((2,), (2,))
    with pytest.raises(
        ResidualError, match=r"No basis for units \[3\]; there are bases for 2 units from 2 to 5"
    ):
        bases.select([2, 3])


GOOD = {
    "units": [1],
    "means": torch.zeros(1, 3),
    "components": [torch.eye(3)[:2]],
    "eigenvalues": [torch.tensor([2.0, 1.0])],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": [1, 1]}, "one or more different units"),
        ({"units": []}, "one or more different units"),
        ({"units": [-1]}, "none negative"),
        ({"units": [1, 2]}, "Bases of 2 units need as many means"),
        ({"means": torch.zeros(1, 4)}, r"unit 1 needs components \(k, 4\)"),
        ({"eigenvalues": [torch.ones(3)]}, r"got \(2, 3\) and \(3,\)"),
        ({"components": [2 * torch.eye(3)[:2]]}, "unit 1 aren't orthonormal: off by 3.0e"),
        ({"eigenvalues": [torch.tensor([1.0, 2.0])]}, "must be finite, not negative, and descend"),
        ({"eigenvalues": [torch.tensor([1.0, -2.0])]}, "must be finite, not negative, and descend"),
        ({"eigenvalues": [torch.tensor([float("nan"), 1.0])]}, "must be finite"),
        ({"all_means": torch.zeros(1, 3)}, "must be .* and reach unit 1"),
        ({"means": torch.tensor([[0.0, torch.inf, 0.0]])}, "means of bases must be .* finite"),
        ({"means": torch.zeros(1)}, "means of bases must be .* the shape"),
        ({"all_means": torch.full((2, 3), torch.nan)}, "all_means of bases must be .* finite"),
        ({"components": [torch.full((2, 3), torch.nan)]}, "aren't orthonormal: off by nan"),
    ],
)
def test_bad_bases_are_refused(change, message):
    with pytest.raises(ResidualError, match=message):
        SpectralBases(**{**GOOD, **change})


ORIGIN = {"encoder_name": "e", "fingerprint": "f", "split": "shared", "datasets": ["d"], "samples": 3}


def test_files_of_bases_that_others_made(tmp_path):
    """Their checksum fits."""
    path, good = tmp_path / "bases", SpectralBases(**GOOD).to_tensors()
    for tensors, note, message in (
        (good, {"origin": 2}, "isn't what was written: the origin isn't an object"),
        (good, {"origin": "x"}, "the origin isn't an object"),
        (good, {"origin": ORIGIN | {"datasets": "d"}}, "'datasets' isn't a list"),
        (good, {"origin": ORIGIN | {"pooling": 1}}, "the pooling is of another type"),
        (good, {}, "the note has no 'origin'"),
        ({"means": good["means"]}, {"origin": None}, "there are no ranks"),
        (good | {"ranks": torch.tensor([3])}, {"origin": None}, "don't belong together"),
        (good | {"ranks": torch.tensor([-1, 3])}, {"origin": None}, "don't belong together"),
        (good | {"ranks": torch.tensor(2)}, {"origin": None}, "don't belong together"),
        (good | {"components": torch.eye(3)[0]}, {"origin": None}, "don't belong together"),
        ({key: good[key] for key in good if key != "means"}, {"origin": None}, "don't belong together"),
    ):
        save_tensors(path, "bases", tensors, note)
        with pytest.raises(ResidualError, match=message):
            SpectralBases.load(path)
    save_tensors(path, "bases", good, {"origin": ORIGIN})
    assert SpectralBases.load(path).origin.samples == 3


def test_files_of_moments_that_others_made(tmp_path):
    path = tmp_path / "moments"
    moments = UnitMoments.of_store(encode_dataset(tiny_encoder(), TinyImages(9)), ("head",))
    moments.save(path)
    good, note = load_tensors(path, "moments")
    for tensors, change, message in (
        (good, {"counts": "x"}, "'counts' isn't a list"),
        (good, {"counts": [9]}, "the note is of other units"),
        (good, {"counts": [-9] * len(note["counts"])}, "the note has other counts than its origin"),
        (good, {"kinds": None}, "'kinds' isn't a list"),
        (good, {"split": "x"}, "centering is"),
        (good, {"origin": []}, "the origin isn't an object"),
        (good | {"0.mean": good["0.mean"][:, :3]}, {}, "holds moments of other units than it says"),
        (good | {"0.mean": good["0.mean"] * torch.nan}, {}, "holds NaN or infinity in mean"),
        ({key: good[key] for key in good if key != "0.mean"}, {}, "holds moments of other units"),
        ({key: good[key] for key in good if "norm" not in key}, {}, "aren't those of one encoder"),
    ):
        save_tensors(path, "moments", tensors, note | change)
        with pytest.raises(ResidualError, match=message):
            UnitMoments.load(path)


@pytest.mark.parametrize("name", ["tiny", "own", "timm attention pool"])
def test_widened_bases_hold_all_that_units_can_write(name):
    """Of four samples; what others contribute lies in their span, less the mean. The first ones stay."""
    encoder = wrap_encoder(CASES[name].make()) if name in CASES else None
    encoder = encoder or tiny_encoder(centering="own" if name == "own" else "shared", output=40)
    few, others = (encode_dataset(encoder, TinyImages(n=n, seed=n)) for n in (4, 30))
    bases = fit_bases(few, ("mlp", "head"))
    wide = bases.spanning(few.linearization)
    contributions = others.contributions().double()
    for place, unit in enumerate(bases.units):
        rows, known = wide.components[place], bases.components[place]
        assert torch.equal(rows[: len(known)], known)
        assert len(rows) <= min(few.linearization.matrix(unit).shape)
        assert not wide.eigenvalues[place][len(known) :].any()
        centred = contributions[:, unit] - wide.means[place]
        miss = centred @ rows.T @ rows - centred
        assert miss.norm() < 1e-4 * centred.norm()
        assert (centred @ known.T @ known - centred).norm() > 0.1 * centred.norm()
    again = wide.spanning(few.linearization)
    assert again.ranks == wide.ranks
