"""The tables in docs/ are those of their results; the developer guide's example is a family that works."""

import re
import statistics
import sys
from pathlib import Path

import pytest
import torch
import transformers
from families import PATCH, randomized
from PIL import Image

from residual.encoders import load, load_encoder, wrap_encoder
from residual.tracing import decompose

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import tables  # noqa: E402 (a script, beside the library)


@pytest.mark.parametrize("name", tables.PAGES)
def test_the_tables_are_made_from_the_results(name):
    assert tables.filled(name) == tables.page_of(name).read_text(encoding="utf-8")


def test_the_figures_of_stores():
    card, cores = tables.result("store"), tables.result("store-cpu")
    for place in ("pixels on cuda:0", "pixels on cpu"):
        assert card["encoding"][place]["store_of_forward"] >= 0.9
        assert card["encoding"][place]["without_linearization"] <= 1.02
    assert cores["bases"]["head"]["seconds"]["median"] <= 20
    assert cores["bases"]["head,mlp"]["seconds"]["median"] <= 90
    assert cores["bases"]["head"]["peak_resident_megabytes"] <= 2000


def test_the_figures_that_are_promised():
    for run in tables.result("speed")["runs"]:
        traced = run["ways"]["traced"]
        assert traced["of_plain"] >= 0.97
        assert traced["memory_of_plain"] <= 1.05
        assert traced["sum_against_own_output"] <= 1e-2
    (run,) = tables.result("speed-compiled")["runs"]
    assert run["ways"]["traced compiled"]["images_per_second"] >= 2750
    assert run["ways"]["traced compiled"]["memory_of_plain"] <= 1.05


def test_maps_find_things_better_than_attention_and_gradients():
    for found in tables.scenes().values():
        for measure in tables.MAP_MEASURES:
            means = {way: statistics.fmean(values[measure]) for way, values in found["ways"].items()}
            others = [means[way] for way in ("attention", "Grad-CAM", "Grad-CAM of class")]
            assert means["class, for"] > max(others)
            if measure != "mean_precision":
                assert means["class"] > max(others)


def test_the_guide_s_family_is_short_and_works(tmp_path, monkeypatch):
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code, _ = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert code.count("\n") < 60
    (tmp_path / "msn_family.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    from msn_family import FAMILIES  # ty: ignore[unresolved-import]

    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
    config = transformers.ViTMSNConfig(**sizes, image_size=32, patch_size=PATCH)
    model = randomized(transformers.ViTMSNModel(config))
    pixels = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    encoder = wrap_encoder(model.double(), family=FAMILIES[0])
    split = decompose(encoder, pixels)
    with torch.no_grad():
        expected = model(pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(split.contributions.sum(2)[:, 0], expected)

    model.float().save_pretrained(tmp_path / "saved")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "saved")
    monkeypatch.setattr(load, "FAMILIES", (*load.FAMILIES, *FAMILIES))
    loaded = load_encoder(f"hf:{tmp_path / 'saved'}", device="cpu")
    assert loaded.fingerprint == encoder.fingerprint
    assert loaded.pixels([Image.new("RGB", (50, 40))]).shape == (1, 3, 32, 32)


def test_the_figures_of_shapes():
    card, cores = tables.result("geometry"), tables.result("geometry-cpu")
    for found, way, most in ((card, "residual, GPU", 5), (cores, "residual", 120)):
        for ways in found["two_nn"]["ways"].values():
            assert ways[way]["seconds"]["median"] <= most
            assert ways[way]["peak_resident_megabytes"] <= 1500
    manifold = cores["two_nn"]["ways"]["manifold"]
    for other in ("scikit-dimension", "dadapy"):
        assert manifold["residual"]["dimension"] == pytest.approx(manifold[other]["dimension"], rel=1e-8)
    assert (card["two_nn"]["samples"], card["two_nn"]["width"]) == (50_000, 768)
    assert (card["experiment"]["units"], card["experiment"]["samples"]) == (409, 50_000)
    assert card["experiment"]["seconds"] <= 600


def test_the_figures_of_heads():
    card, cores = tables.result("heads"), tables.result("heads-cpu")
    for found, most in ((card, 20), (cores, 300)):
        scores = found["scores"]
        assert (scores["heads"], scores["samples"], scores["classes"]) == (384, 50_000, 100)
        assert scores["seconds"]["correlation, span, accuracy"] <= most
        assert scores["peak_resident_megabytes"] <= 4000
        assert found["somp"]["same_atoms"]
    assert card["somp"]["ways"]["somp"]["seconds"]["median"] <= 2
    (datasets,) = tables.result("experiment-3")["details"].values()
    assert len(datasets) == 10


def test_the_figures_of_adapters():
    card, cores = (tables.result(name)["pipeline"] for name in ("adapters", "adapters-cpu"))
    assert card["n_train"] == 45_000
    assert card["times_faster_than_its_training_alone"]["least"] >= 150
    assert cores["times_faster"]["least"] >= 30
    for found in (card, cores):
        assert all(ours["at_once"]["fits"] == 10 and ours["at_once"]["of_one"] <= 2 for ours in found["ours"])
        assert found["epochs"] == 30
        assert found["rerun"]["timed_steps"] >= 200
    many = tables.result("adapters")["many"]
    one, ten = (many[f"batch 64, {fits} fits"]["seconds_an_epoch"]["median"] for fits in (1, 10))
    assert ten <= 2.05 * one
    for run in tables.result("adapted")["large"]["runs"]:
        for way in run["ways"].values():
            assert way["median_time_of_median_plain"] <= 1.03
    (rows,) = (encoder["accuracies"] for encoder in tables.result("experiment-4")["details"].values())
    found = {(row["method"], row["dataset"]): row["accuracy"] for row in rows}
    assert len(found) == 7 * 10
    assert all(row["seeds"] == 5 for row in rows if row["method"] != "zero_shot")
    datasets = {dataset for _, dataset in found}
    above = {name for name in datasets if found["residual", name] > found["zero_shot", name]}
    assert datasets - above == {"emoji-concepts"}
    methods = {method for method, _ in found}
    mean = {method: sum(found[method, name] for name in datasets) / 10 for method in methods}
    assert 0.03 < mean["fine_tuning"] - mean["residual"] < 0.035  # as the page says
