"""Models from a hub that is served here, laid out as the paper's are: what is fetched, and what is said."""

from dataclasses import replace

import hub_server
import open_clip
import pytest
import torch
from hub_server import TOKEN, running_hub
from huggingface_hub import constants
from saved import no_hub, open_clip_saved, transformers_folder
from tiny import random_pixels

from residual.encoders.load import load_encoder
from residual.encoders.lookup import look_up_encoder
from residual.encoders.names import ALIASES, is_listed
from residual.errors import ResidualError, UnreachableHubError


@pytest.fixture
def hub(monkeypatch, tmp_path):
    no_hub(monkeypatch, tmp_path)  # open_clip's lists are put back
    with running_hub() as hub:
        hub_server.at(monkeypatch, hub, tmp_path / "kept")
        yield hub


def fetched(hub):
    return {path.rpartition("/")[2] for path in hub.sent}


def test_an_alias_names_the_revision_that_has_safetensors(hub, tmp_path):
    saved = transformers_folder("ViTModel", tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    pickled = {"pytorch_model.bin": b"a pickle", "tf_model.h5": b"another form"}
    repo, lacking = "google/vit-large-patch16-224", {n: d for n, d in files.items() if "safetensors" not in n}
    hub.put(repo, lacking | pickled)
    hub.put(repo, lacking | pickled | {"README.md": b"of somebody else"}, "refs/pr/1")
    hub.put(repo, files | pickled, "refs/pr/2")
    pixels = random_pixels(2, dtype=torch.float32)
    encoder = load_encoder("vit_l", device="cpu")
    torch.testing.assert_close(encoder.encode_image(pixels), saved.image(pixels))
    assert encoder.name == "vit_l"  # as stores and adapters of before know it
    assert fetched(hub) == set(files)
    assert not [path for path in hub.asked if "revision/main" in path]
    with pytest.raises(
        ResidualError, match=rf"'{repo}' has no model\*\.safetensors, .* can run code"
    ) as told:
        load_encoder(f"hf:{repo}", device="cpu")
    assert f"Its revision refs/pr/2 has them: load {repo}@refs/pr/2. Look first" in told.value.hint
    with pytest.raises(ResidualError, match=r"at refs/pr/1 has no .*Its revision refs/pr/2 has them"):
        load_encoder(f"hf:{repo}@refs/pr/1", device="cpu")
    assert is_listed(f"hf:{repo}")
    assert is_listed(f"hf:{repo}@refs/pr/2")
    assert not is_listed(f"hf:{repo}@refs/pr/1")
    del hub.references[repo]["refs/pr/2"]
    with pytest.raises(ResidualError, match="Convert them to safetensors, or name a revision"):
        load_encoder(f"hf:{repo}", device="cpu")


def test_what_the_hubs_converter_made_is_taken_where_the_main_revision_has_pickles_alone(
    hub, tmp_path, monkeypatch
):
    repo, name = ALIASES["hf_clip_l"].spec.partition(":")[2], "hf_clip_l"
    transformers_folder("CLIPVisionModelWithProjection", tmp_path / "other")
    saved = transformers_folder("CLIPModel", tmp_path / "model")
    hub.put(repo, {"pytorch_model.bin": b"a pickle", "config.json": b"{}"})
    for number, folder in enumerate(("other", "other", "model"), 1):
        hub.put(repo, tmp_path / folder, f"refs/pr/{number}")
    hub.authors[repo] = {"refs/pr/3": "SFconvertbot", "refs/pr/2": "SFconvertb0t", "refs/pr/1": "me"}
    pixels = random_pixels(2, dtype=torch.float32)
    for online in (True, False):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not online)
        with pytest.warns(UserWarning, match=rf"hf_clip_l: '{repo}' has no .* taken are those of refs/pr/3"):
            encoder = load_encoder(name, device="cpu")
        torch.testing.assert_close(encoder.encode_image(pixels), saved.image(pixels))
        found = look_up_encoder(name)
        size = (tmp_path / "model" / "model.safetensors").stat().st_size
        assert (found.error, found.source, found.size) == (None, f"{repo}@refs/pr/3", size)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ResidualError, match=r"at main has no .*Its revision refs/pr/1 has them"):
        load_encoder(f"hf:{repo}@main", device="cpu")


def test_a_network_that_fails_is_told_as_one(hub, tmp_path, monkeypatch):
    """What was fetched in part, too: that weights aren't here says nothing of what the hub has."""
    transformers_folder("ViTModel", tmp_path / "model")
    hub.put("me/whole", tmp_path / "model")
    hub.put("me/cut", tmp_path / "model")
    for name in ("hf:me/whole", "hf:me/cut"):
        load_encoder(name, device="cpu")
    (weights,) = (tmp_path / "kept").rglob("models--me--cut/snapshots/*/model.safetensors")
    weights.unlink()
    for older in (False, True):  # clients of before hub 2 didn't keep the list of a revision's files
        if older:
            for each in (tmp_path / "kept").rglob("trees/*.json"):
                each.unlink()
        for url, online in ((hub.url, False), ("http://127.0.0.1:9", True)):
            hub_server.at(monkeypatch, replace(hub, url=url), tmp_path / "kept")
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not online)
            assert load_encoder("hf:me/whole", device="cpu").output_dim
            for name in ("hf:me/cut", "hf:me/none", "open_clip:hf-hub:me/none", "timm:hf-hub:me/none"):
                with pytest.raises(UnreachableHubError, match=r"Try again where the hub can be reached"):
                    load_encoder(name, device="cpu")


@pytest.mark.parametrize("first", [True, False])
def test_laions_weights_have_two_names(hub, tmp_path, first):
    saved = open_clip_saved("tiny", tmp_path / "model", as_file=False)
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    open_clip_saved("tiny", tmp_path / "architecture", as_file=True)  # open_clip knows it by name
    weights, other = files.pop("open_clip_model.safetensors"), "open_clip_pytorch_model"
    layout = {f"{other}.safetensors": weights, f"{other}.bin": b"a pickle", "model.safetensors": b"not ours"}
    if first:
        layout["open_clip_model.safetensors"] = weights
    hub.put("laion/tiny", files | layout)
    tag = {"hf_hub": "laion/tiny/", "mean": (0, 0, 0), "std": (1, 1, 1)}
    open_clip.pretrained._PRETRAINED["tiny"] = {
        "tag": tag | {"interpolation": "bicubic", "resize_mode": "shortest"}
    }
    pixels = random_pixels(2, dtype=torch.float32)
    for name in ("open_clip:tiny/tag", "open_clip:hf-hub:laion/tiny"):
        torch.testing.assert_close(load_encoder(name, device="cpu").encode_image(pixels), saved.image(pixels))
    wanted = "open_clip_model.safetensors" if first else f"{other}.safetensors"
    assert {name for name in fetched(hub) if name in layout} == {wanted}


def test_what_the_hub_refuses_is_said_with_what_it_needs(hub, tmp_path, monkeypatch):
    transformers_folder("ViTModel", tmp_path / "model")
    hub.put("me/gated", tmp_path / "model")
    hub.gated.add("me/gated")
    needs = r"it is gated: accept its terms on its page there, and give a token of that account in HF_TOKEN\)"
    for token in ("", "hf_of_another"):  # 401 and 403
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(ResidualError, match=needs):
            load_encoder("hf:me/gated", device="cpu")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load_encoder("hf:me/gated", device="cpu").output_dim
    with pytest.raises(ResidualError, match=r"\(there is none of that name, or it is private and needs a t"):
        load_encoder("hf:me/none", device="cpu")
    with pytest.raises(ResidualError, match=r"\(it has no such revision\)"):
        load_encoder("hf:me/gated@v9", device="cpu")
