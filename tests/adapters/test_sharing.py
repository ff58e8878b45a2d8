"""Save, load and share: what comes back is what was saved, on its own encoder and on no other."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import NAMES, adapters_of, case, classifier_of, pixels_of, random_bases, residual_of, tiny
from tiny import TinyImages, random_pixels, tiny_encoder

import residual
from residual import AdaptedEncoder, encode_dataset, fit_bases, load_encoder
from residual.adapters import LinearMap, ResiDual, ResiDualStar, TrainingRecord
from residual.adapters.card import hub_name, model_card
from residual.adapters.inspection import strongest_components
from residual.errors import AdapterEncoderError, ResidualError
from residual.tensor_files import pack_tensors, unpack_tensors
from residual.text import ZeroShotClassifier

ROUNDED = {"atol": 1e-5, "rtol": 1e-5}
RECORD = TrainingRecord(
    dataset="tiny",
    accuracy={"zero_shot": 0.5, "residual": 0.75},
    interval={"residual": 0.02},
    n_train=40,
    n_test=1000,
    seeds=(0, 1, 2),
    settings={"learning_rate": 0.8},
)


def test_what_was_saved_comes_back(tmp_path):
    encoder, pixels = tiny(), random_pixels(4)
    heads = fit_bases(encode_dataset(encoder, TinyImages(30)), ("head",))
    own = [ResiDualStar(heads), ResiDual(heads, 2, "zero"), LinearMap(12, origin=heads.origin)]
    for number, adapter in enumerate([*adapters_of(encoder), *own]):
        folder = tmp_path / str(number)
        saved = AdaptedEncoder(encoder, adapter, classifier_of(encoder), RECORD)
        saved.save_pretrained(folder)
        names = {file.name for file in folder.iterdir()}
        assert names == {"adapter.safetensors", "adapter_config.json", "README.md"}
        loaded = AdaptedEncoder.from_pretrained(folder, encoder)
        got = loaded.adapter
        torch.testing.assert_close(loaded.encode_image(pixels), saved.encode_image(pixels), **ROUNDED)
        torch.testing.assert_close(loaded(pixels), saved(pixels), **ROUNDED)
        assert (loaded.class_names, loaded.record, loaded.method) == (NAMES, RECORD, adapter.method)
        assert type(got) is type(adapter)
        assert torch.equal(got.weights, adapter.weights)
        assert got.weights.dtype == adapter.weights.dtype
        assert (got.ranks, got.origin, got.choices()) == (adapter.ranks, adapter.origin, adapter.choices())
        assert getattr(got, "l1", None) == getattr(adapter, "l1", None)
        for one, other in zip(got.unit_weights(), adapter.unit_weights(), strict=True):
            assert one.unit == other.unit
            assert len(one.directions) == len(other.directions)
        if not adapter.of_components:
            continue
        for one, other in zip(strongest_components(got), strongest_components(adapter), strict=True):
            assert (one.unit, one.index, one.weight) == (other.unit, other.index, other.weight)
            assert one.explained == pytest.approx(other.explained)


def test_of_other_families(tmp_path):
    for name in ("open_clip", "timm attention pool", "dinov2"):
        encoder = case(name, centering="own")
        saved = AdaptedEncoder(encoder, residual_of(encoder))
        saved.save_pretrained(tmp_path / name)
        loaded = AdaptedEncoder.from_pretrained(tmp_path / name, encoder)
        pixels = pixels_of(encoder, 3)
        torch.testing.assert_close(loaded(pixels), saved(pixels), atol=1e-4, rtol=1e-4)
        assert (loaded.class_names, loaded.record) == ((), None)


@settings(deadline=None, max_examples=15)
@given(
    units=st.lists(st.integers(0, 15), min_size=1, max_size=16, unique=True),
    rank=st.sampled_from([None, 1, 0.5]),
    others=st.sampled_from(["keep", "mean", "zero"]),
    tail=st.sampled_from(["keep", "drop"]),
    mean=st.sampled_from(["keep", "drop"]),
    seed=st.integers(0, 99),
)
def test_a_second_save_is_the_first(tmp_path_factory, units, rank, others, tail, mean, seed):
    encoder, folder = tiny(), tmp_path_factory.mktemp("saved")
    bases = random_bases(16, 12, units, seed)
    adapter = ResiDual(bases, rank, others, tail, seed=seed, mean=mean)
    AdaptedEncoder(encoder, adapter).save_pretrained(folder / "one")
    AdaptedEncoder.from_pretrained(folder / "one", encoder).save_pretrained(folder / "two")
    for name in ("adapter.safetensors", "adapter_config.json"):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()


def test_the_encoder_is_loaded_by_its_name(tmp_path):
    encoder = load_encoder("picto", device="cpu")
    classifier = ZeroShotClassifier.from_text(encoder, ["cat", "dog"], ["a {}"])
    saved = AdaptedEncoder(encoder, residual_of(encoder), classifier)
    saved.save_pretrained(tmp_path / "a")
    loaded = residual.AdaptedEncoder.from_pretrained(str(tmp_path / "a"), device="cpu")
    pixels = pixels_of(encoder, 3)
    torch.testing.assert_close(loaded(pixels), saved(pixels), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loaded.encode_text(["a cat"]), encoder.encode_text(["a cat"]))
    AdaptedEncoder(tiny_encoder()).save_pretrained(tmp_path / "b")
    with pytest.raises(ResidualError, match="Unknown encoder 'tiny'"):
        AdaptedEncoder.from_pretrained(tmp_path / "b", "tiny")


def test_an_encoder_that_only_a_file_names_is_not_loaded(tmp_path, monkeypatch):
    at = f"hf:{tmp_path / 'private' / 'model'}"
    shutil.copytree(residual.encoders.names.EMBEDDED["picto"], tmp_path / "private" / "model")
    encoder = load_encoder(at, device="cpu")
    store = encode_dataset(encoder, TinyImages(30, size=64, name=f"folder:{tmp_path}/pictures"))
    record = replace(RECORD, dataset=f"folder:{tmp_path}/pictures")
    saved = AdaptedEncoder(encoder, ResiDualStar(fit_bases(store, ("head",))), None, record)
    saved.save_pretrained(tmp_path / "kept")
    for name in ("adapter.safetensors", "adapter_config.json", "README.md"):
        assert os.fsencode(tmp_path) not in (tmp_path / "kept" / name).read_bytes(), name
    config = json.loads((tmp_path / "kept" / "adapter_config.json").read_text())
    assert config["encoder"]["name"] == config["bases"]["encoder_name"] == "hf:model"
    assert config["bases"]["datasets"] == ["folder:pictures/train"]
    assert config["training"]["dataset"] == "folder:pictures"
    card = (tmp_path / "kept" / "README.md").read_text()
    assert 'from_pretrained("kept", encoder=encoder)' in card
    loaded = AdaptedEncoder.from_pretrained(tmp_path / "kept", at, device="cpu")
    assert (loaded.name, loaded.adapter.origin.encoder_name) == (at, "hf:model")
    monkeypatch.chdir(tmp_path / "private")  # what it names is there, and isn't looked for
    monkeypatch.setattr("residual.adapters.config.load_encoder", None)
    with pytest.raises(
        AdapterEncoderError, match=r"called 'hf:model', .* because a file names it\. Give it, or"
    ) as it:
        AdaptedEncoder.from_pretrained(tmp_path / "kept")
    assert it.value.encoder_name == "hf:model"
    assert model_card(config | {"encoder": config["encoder"] | {"name": "hf:a/b"}}, "x").count(
        'from_pretrained("x", encoder="hf:a/b")'
    )


@pytest.mark.parametrize("kind", ["fine-tuned", "fine-tuned and adapted", "as it is"])
def test_an_encoder_that_was_fine_tuned(kind, tmp_path):
    original = tiny_encoder()
    tuned = original.around(copy.deepcopy(original.module))
    if kind != "as it is":
        with torch.no_grad():
            for name, parameter in tuned.module.named_parameters():
                if name.startswith("vision_model."):
                    parameter.add_(0.1)
    adapter = residual_of(tuned) if kind == "fine-tuned and adapted" else None
    before = None if kind == "as it is" else original.fingerprint
    saved = AdaptedEncoder(tuned, adapter, classifier_of(tuned), original=before)
    saved.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    wanted = {"fine-tuned": "fine_tuning", "fine-tuned and adapted": "residual", "as it is": "none"}
    assert config["method"] == wanted[kind]
    pixels = random_pixels(3)
    for given_encoder in (original, tuned):
        loaded = AdaptedEncoder.from_pretrained(tmp_path, given_encoder)
        torch.testing.assert_close(loaded(pixels), saved(pixels), **ROUNDED)
        assert loaded.original == before
    assert original.fingerprint == tiny_encoder().fingerprint
    torch.testing.assert_close(original.encode_image(pixels), tiny_encoder().encode_image(pixels))
    with pytest.raises(ResidualError, match=r"is for tiny \(weights .* not for tiny \(weights"):
        AdaptedEncoder.from_pretrained(tmp_path, tiny_encoder(seed=7))


def test_other_encoders_are_refused(tmp_path):
    encoder = tiny_encoder()
    AdaptedEncoder(encoder, residual_of(encoder)).save_pretrained(tmp_path)
    for other, says in (
        (tiny_encoder(seed=1), r"is for tiny \(weights .* not for tiny \(weights"),
        (
            tiny_encoder(centering="own"),
            r"centering 'shared', width 12\), not .* centering 'own', width 12\)",
        ),
        (tiny_encoder(output=7), r"width 12\), not for tiny .* width 7\)"),
    ):
        with pytest.raises(ResidualError, match=says):
            AdaptedEncoder.from_pretrained(tmp_path, other)


def test_damaged_and_hostile_files_are_one_sentence(tmp_path):
    encoder = tiny_encoder()
    good, folder = tmp_path / "good", tmp_path / "bad"
    adapter = ResiDual(fit_bases(encode_dataset(encoder, TinyImages(30)), ("head",)))
    AdaptedEncoder(encoder, adapter, classifier_of(encoder), RECORD).save_pretrained(good)
    tensors, config = (good / "adapter.safetensors").read_bytes(), (good / "adapter_config.json").read_text()
    bare = pack_tensors("adapted encoder", unpack_tensors(tensors, "adapted encoder", "")[0], {})
    # Until 0.1 the tensors held no copy of the config, so that anything can be in it.
    told = json.loads(config) | {"sha256": hashlib.sha256(bare).hexdigest()}
    folder.mkdir()

    def refused(says: str, tensors: bytes | None = bare, config: str | bytes | None = config) -> None:
        for name, content in (("adapter.safetensors", tensors), ("adapter_config.json", config)):
            (folder / name).unlink(missing_ok=True)
            if content is not None:
                (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(ResidualError, match=says) as caught:
            AdaptedEncoder.from_pretrained(folder, encoder)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000

    refused("holds no adapter_config.json", config=None)
    refused(r"adapter\.safetensors can't be read", tensors=None)
    refused("is damaged, or of another save", tensors=bare)
    refused("is damaged, or of another save", tensors=tensors[:-1])
    refused("is damaged, or of another save", tensors=tensors[:-9] + bytes([tensors[-9] ^ 1]) + tensors[-8:])
    refused("isn't what was saved with", tensors, changed(json.loads(config), trained_weights=3))
    for broken in (
        config[:-9],
        "[" * 100_000,
        '{"format": NaN}',
        f'{{"format": {"1" * 10_000}}}',
        b"\xff\x00",
    ):
        refused(r"adapter_config\.json' is no JSON", config=broken)
    refused(r"has 9,000,000 bytes, more than the 8,388,608 that are read", config=" " * 9_000_000)
    refused(r"adapter_config\.json can't be read \(it tells of no format", config="[]")
    refused("is of format 3, and this residual-vit .* reads formats 1 and 2", config=changed(told, format=3))
    refused("make no adapter", config=changed(told, encoder={}))
    refused("make no adapter", config=changed(told, encoder=told["encoder"] | {"pooling": "avg"}))
    refused("make no adapter .the config has no 'adapter'", config=without(told, "adapter"))
    refused("make no adapter .no 'others'", config=changed(told, adapter={"dim": 12}))
    refused("method 'magic' isn't known", config=changed(told, method="magic"))
    refused("2 classes need as many rows, got 3", config=changed(told, class_names=["a", "b"]))
    refused("'class_names' is of another type", config=changed(told, class_names="abc"))
    refused("others is 'keep'", config=changed(told, adapter=told["adapter"] | {"others": "eat"}))
    refused("make no adapter", config=changed(told, bases={"datasets": ["x"]}))
    refused("Accuracies are parts", config=changed(told, training=asdict(RECORD) | {"accuracy": {"a": 3}}))
    refused("has .colour. in training, which", config=changed(told, training={"colour": "red"}))
    refused("make no adapter", config=changed(told, classifier={"scale": 10**400, "fingerprint": None}))
    for what in ("encoder", "adapter", "bases", "classifier", "training"):
        for name, value in told[what].items():
            for wrong in ({"a": []}, [[3]], 10**400, "\x1b[2J"):
                if type(wrong) is not type(value or ""):
                    refused("make no adapter", config=changed(told, **{what: told[what] | {name: wrong}}))


def test_a_save_that_is_cut_off_leaves_the_old_or_the_new_one(tmp_path, monkeypatch):
    """Before each step by which a file comes to its place, and before each that brings one to the disk."""
    encoder = tiny()
    old, new = (
        AdaptedEncoder(encoder, LinearMap(12, torch.eye(12) * k), classifier_of(encoder)) for k in (1, 2)
    )
    for name in ("replace", "fsync"):
        real, found = getattr(os, name), []
        while not found or found[-1] != "whole":
            folder, calls = tmp_path / name / str(len(found)), 0
            old.save_pretrained(folder)

            def cut_off(*args, real=real, found=found, **kwargs):
                nonlocal calls
                calls += 1
                if calls > len(found):
                    raise KeyboardInterrupt
                return real(*args, **kwargs)

            monkeypatch.setattr(os, name, cut_off)
            try:
                new.save_pretrained(folder, overwrite=True)
                found.append("whole")
            except KeyboardInterrupt:
                monkeypatch.undo()
                got = AdaptedEncoder.from_pretrained(folder, encoder).adapter.matrix[0, 0].item()
                found.append({1.0: "old", 2.0: "new"}[got])
            monkeypatch.undo()
            new.save_pretrained(folder, overwrite=True)
            assert AdaptedEncoder.from_pretrained(folder, encoder).adapter.matrix[0, 0].item() == 2
            assert len(list(folder.iterdir())) == 3
        assert found == sorted(found, key=("old", "new", "whole").index)
        assert {"old", "new"} <= set(found)


def test_a_first_save_that_is_cut_off_is_whole_once_its_tensors_are_there(tmp_path, monkeypatch):
    encoder, real, found = tiny(), os.replace, []
    adapted = AdaptedEncoder(encoder, LinearMap(12), classifier_of(encoder))
    while not found or found[-1] < 3:
        folder, calls = tmp_path / str(len(found)), []

        def cut_off(*args, calls=calls):
            calls.append(args)
            if len(calls) > len(found):
                raise KeyboardInterrupt
            real(*args)

        with monkeypatch.context() as cut, suppress(KeyboardInterrupt):
            cut.setattr(os, "replace", cut_off)
            adapted.save_pretrained(folder)
        found.append(len(list(folder.iterdir())))
        if found[-1]:
            assert AdaptedEncoder.from_pretrained(folder, encoder).class_names == NAMES
        else:
            with pytest.raises(ResidualError, match=r"holds no adapter_config\.json"):
                AdaptedEncoder.from_pretrained(folder, encoder)
    assert found == [0, 1, 2, 3]
    assert {path.name for path in (tmp_path / "2").iterdir()} == {
        "adapter.safetensors",
        "adapter_config.json",
    }
    path = tmp_path / "1" / "adapter.safetensors"
    tensors, note = unpack_tensors(path.read_bytes(), "adapted encoder", "")
    for place in ("1", "3"):  # a newer version's save, the first one or over an older one
        newer = {"format": 3, "config": note["config"] | {"format": 3}}
        (tmp_path / place / path.name).write_bytes(pack_tensors("adapted encoder", tensors, newer))
        with pytest.raises(
            ResidualError, match=r"adapter\.safetensors is of format 3, and this residual-vit"
        ):
            AdaptedEncoder.from_pretrained(tmp_path / place, encoder)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ResidualError, match=r"adapter\.safetensors can't be read"):
        AdaptedEncoder.from_pretrained(tmp_path / "1", encoder)


def test_a_file_that_fits_its_config_is_summed_once(tmp_path, monkeypatch):
    encoder = tiny()
    monkeypatch.chdir(tmp_path)
    AdaptedEncoder(encoder, LinearMap(12)).save_pretrained(".")
    assert f'from_pretrained("{tmp_path.name}", encoder=encoder)' in (tmp_path / "README.md").read_text()
    monkeypatch.setattr("residual.tensor_files.sha256", None)
    AdaptedEncoder.from_pretrained(".", encoder)


def changed(told: dict, **new: object) -> str:
    return json.dumps(told | new)


def without(told: dict, name: str) -> str:
    return json.dumps({key: value for key, value in told.items() if key != name})


def test_places_that_cant_be(tmp_path):
    encoder = tiny_encoder()
    adapted = AdaptedEncoder(encoder, residual_of(encoder))
    (tmp_path / "file").write_text("here already")
    with pytest.raises(ResidualError, match="can't be written"):
        adapted.save_pretrained(tmp_path / "file")
    with pytest.raises(ResidualError, match="is a folder, which has no revision 'v1'"):
        AdaptedEncoder.from_pretrained(tmp_path, revision="v1")
    for place in ("no/such", "not a name/of/the/hub"):
        with pytest.raises(ResidualError, match="there is no such folder, and it can't be had from the hub"):
            AdaptedEncoder.from_pretrained(place)
    with pytest.raises(ResidualError, match="owner/name: it can't be put onto the hub"):
        adapted.push_to_hub("owner/name")  # offline


def test_the_card_tells_what_it_is(tmp_path):
    encoder = tiny_encoder()
    adapted = AdaptedEncoder(encoder, residual_of(encoder), classifier_of(encoder), RECORD)
    adapted.save_pretrained(tmp_path / "mine")
    card = huggingface_hub.ModelCard.load(tmp_path / "mine" / "README.md")
    assert card.data.library_name == "residual-vit"
    assert card.data.tags == ["residual-vit", "vision-transformer", "residual"]
    assert card.data.base_model is None
    for line in (
        'AdaptedEncoder.from_pretrained("mine", encoder=encoder)',
        "| residual | 75.0 ± 2.0 % (72.2 to 77.6) |",
        "| zero\\_shot | 50.0 % (46.9 to 53.1) |",
        "3 classes: fox, owl, eel",
        "on 1,000 pictures, means over 3 seeds. ±: half the 95 % t interval over seeds. In brackets: ",
        "## What this doesn't show",
    ):
        assert line in card.text, line
    strange = replace(RECORD, dataset="a|b\n# c", accuracy={"x|y": 1}, interval={})
    odd = encoder.around(encoder.module)
    odd.name = "`a`\n---\n# \x1b[2Jb"
    AdaptedEncoder(odd, adapted.adapter, None, strange).save_pretrained(tmp_path / "odd")
    text = huggingface_hub.ModelCard.load(tmp_path / "odd" / "README.md").text
    assert "# \\`a\\` --- \\# \\\\x1b\\[2Jb adapted to a\\|b \\# c\n" in text
    assert "- encoder `'a'\\n---\\n# \\x1b[2Jb`, fingerprint" in text
    assert "| x\\|y | 100.0 % (99.6 to 100.0) |" in text


def test_base_models_are_named_where_they_are_on_the_hub(tmp_path):
    assert hub_name("hf:openai/clip-vit-base-patch16") == "openai/clip-vit-base-patch16"
    assert hub_name("hf:owner/name@refs/pr/3") == "owner/name"
    assert hub_name("timm:hf-hub:timm/vit.one") == "timm/vit.one"
    for name in ("picto", f"hf:{tmp_path}", "open_clip:ViT-B-16/laion2b", "CLIPModel", "hf:a/b/c"):
        assert hub_name(name) is None


def test_records_are_checked():
    with pytest.raises(ResidualError, match="Accuracies are parts from 0 to 1; a isn't"):
        TrainingRecord(accuracy={"a": 75})
    with pytest.raises(ResidualError, match="interval of 'b' must be of one of the accuracies"):
        TrainingRecord(accuracy={"a": 0.5}, interval={"b": 0.1})
    with pytest.raises(ResidualError, match="must be plain JSON"):
        TrainingRecord(settings={"path": Path()})
    assert TrainingRecord.of_json(json.loads(json.dumps(asdict(RECORD)))) == RECORD


_ON_A_HUB = """
import json, os, sys
from pathlib import Path
from hub_server import TOKEN, running_hub

with running_hub() as hub:
    os.environ["HF_ENDPOINT"] = hub.url
    hub.put("owner/words", {".gitattributes": b"", "README.md": b"mine"})
    import torch
    from residual import AdaptedEncoder, ResidualError, load_encoder
    from residual.adapters import LinearMap

    encoder = load_encoder("picto", device="cpu")
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    adapted = [AdaptedEncoder(encoder, LinearMap(192, torch.eye(192) * (k + 1))) for k in range(2)]

    def refused(what):
        try:
            what()
        except ResidualError as error:
            return str(error)

    told = {
        "url": [
            each.push_to_hub("owner/mine", private=True, token=TOKEN, overwrite=each is adapted[1])
            for each in adapted
        ],
        "there already": refused(lambda: adapted[0].push_to_hub("owner/mine", token=TOKEN)),
        "foreign": refused(lambda: adapted[0].push_to_hub("owner/words", token=TOKEN, overwrite=True)),
        "wrong token": refused(lambda: adapted[0].push_to_hub("owner/other", token="hf_wrong")),
        "no repository": refused(lambda: AdaptedEncoder.from_pretrained("owner/none")),
        "no revision": refused(lambda: AdaptedEncoder.from_pretrained("owner/mine", revision="v9")),
    }
    first, second = hub.commits["owner/mine"]
    with torch.no_grad():
        got = AdaptedEncoder.from_pretrained("owner/mine", encoder)
        torch.testing.assert_close(got(pixels), adapted[1](pixels))
    old = AdaptedEncoder.from_pretrained("owner/mine", device="cpu", revision=first)
    told |= {"old": [old.adapter.matrix[0, 0].item(), old.name], "private": hub.private, "hub": hub.url}
    told |= {"last": hub.latest["owner/mine"] == second, "asked": hub.asked}
    told["files"] = {name: data.decode("latin1") for name, data in hub.commits["owner/mine"][second].items()}
gone = AdaptedEncoder.from_pretrained("owner/mine", encoder, revision=first)  # from the cache
told["gone"] = gone.adapter.matrix[0, 0].item()
print(json.dumps(told))
"""


def test_over_a_hub(tmp_path):
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]),
    }
    # By itself: where the hub is must be known before the library that asks it is imported.
    run = [sys.executable, "-c", _ON_A_HUB]
    done = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["url"] == [f"{told['hub']}/owner/mine"] * 2
    assert told["private"] == {"owner/mine": True}
    assert "The repository 'owner/mine' holds an adapter already. To replace it" in told["there already"]
    assert "'owner/words' holds 'README.md': it is no place for an adapter" in told["foreign"]
    assert "owner/other: it can't be put onto the hub (" in told["wrong token"]
    assert "there is no such folder, and it can't be had from the hub" in told["no repository"]
    assert "it can't be had from the hub" in told["no revision"]
    assert all("\n" not in told[key] for key in ("wrong token", "no repository", "no revision"))
    assert told["last"]
    assert set(told["files"]) == {"README.md", "adapter.safetensors", "adapter_config.json"}
    assert 'from_pretrained("owner/mine")' in told["files"]["README.md"]
    assert (told["old"], told["gone"]) == ([1.0, "picto"], 1.0)
    assert not [path for path in told["asked"] if path.endswith("README.md") and not path.startswith("POST")]
