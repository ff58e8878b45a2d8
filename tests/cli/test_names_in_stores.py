"""A store of others names its encoder and its dataset; nothing is fetched or opened because of that."""

from __future__ import annotations

import http.server
import json
import sys
import threading

import pytest
import torch
from pictures import write_folder
from tiny import TinyImages, tiny_clip

from residual import ResidualStore, encode_dataset, fit_bases, load_dataset, wrap_encoder
from residual.adapters import AdaptedEncoder, Coarse, sharing
from residual.data.hub.catalogue import classes_of, templates_of
from residual.data.load import ships
from residual.encoders.names import is_listed
from residual.errors import ResidualError, StoreEncoderError
from residual.files import shareable
from residual.store import manifest
from residual.text import ZeroShotClassifier
from residual.workflows.store_origin import classifier_of, dataset_of, encoder_of

SEEN: list[str] = []
_watching = False


def _watch(event: str, arguments: tuple) -> None:
    if _watching and event in ("open", "os.listdir", "os.scandir", "socket.connect", "socket.getaddrinfo"):
        SEEN.append(f"{event} {arguments[:2]}")


sys.addaudithook(_watch)  # it can't be taken away again; outside of this test it does nothing


@pytest.fixture
def seen(monkeypatch):
    """What is opened and asked of the network from here on."""
    SEEN.clear()
    monkeypatch.setattr(sys.modules[__name__], "_watching", True)
    return SEEN


@pytest.fixture(scope="module")
def server():
    """A server on this machine, and the requests that it had."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815 (named by its class)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", requests
        running.shutdown()


@pytest.fixture
def whole_names(monkeypatch):
    """Stores as others may write them: whatever the name of an encoder or a dataset is."""
    for module in (manifest, sharing):
        monkeypatch.setattr(module, "shareable", str)


def texts_in(folder):
    (folder / "texts.txt").write_text("a letter\na flag\na digit\n")
    return folder / "texts.txt"


def test_which_names_a_file_may_have_loaded():
    assert all(map(is_listed, ("picto", "clip_b", "open_clip:ViT-B-16/openai")))
    assert not any(
        map(
            is_listed,
            (
                "hf:me/mine",
                "openai/clip-vit-base-patch16",
                "picto ",
                "open_clip:ViT-B-16/mine",
                "timm:vit",
                "",
            ),
        )
    )
    assert all(map(ships, ("mnist", "flags", "mixed", "random")))
    assert not any(
        map(ships, ("cifar10", "folder:mnist", "./mnist", "me/mnist", "hf:mnist", "wds:http://h/a.tar", ""))
    )


@pytest.mark.usefixtures("whole_names")
def test_a_dataset_that_a_store_names_is_neither_fetched_nor_opened(
    picto, residual, tmp_path, server, seen, monkeypatch
):
    address, requests = server
    private = write_folder(tmp_path / "private", each=2)
    told, odd = tmp_path / "told.json", "\x1b[2J\n\u202e"
    for number, name in enumerate((f"wds:{address}/{odd}{{0..1}}.tar", f"folder:{private}")):
        images = TinyImages(12, name=name)
        encode_dataset(picto, images, store := tmp_path / f"store {number}")
        seen.clear()
        noted = f"The dataset of the store, {shareable(name)!r}, isn't loaded because a store names it"
        why = f"{noted}: pictures are left out and the template is 'a photo of a {{}}.'."
        way_out = "If you trust it, name it to load it: --dataset NAME.\n"
        few = ("--dictionary", texts_in(tmp_path), "--head", "7.0", "--atoms", 2, "--json", told)
        page_at = tmp_path / "heads.html"
        code, shown, err = residual("describe", store, *few, "--page", page_at, "--overwrite")
        assert (code, err) == (0, f"{why}\n{way_out}")
        assert json.loads(told.read_text(encoding="utf-8"))["notes"][-1] == why
        page = page_at.read_text(encoding="utf-8")
        assert "<img " not in page
        assert [sign for sign in ("\x1b", "\u202e") if sign in shown + page] == []
        board = ("--param", "ScoreboardSettings.shares=(0.5,)", "--param", "ScoreboardSettings.seeds=2")
        for command in (
            ("heads", store, *board),
            ("analyze", store, "--kinds", "emb"),
            ("verify", store),
            ("bases", store, "--kinds", "emb", "--out", tmp_path / "b.safetensors"),
        )[number :: 2]:  # fmt: skip
            assert residual(*command)[0] == 0
    kept = ResidualStore.open(store).load()
    monkeypatch.chdir(tmp_path)
    for place in (
        *("hf:me/mine", f"disk:{private}", f"wds:simplecache::{address}/a.tar", "nothing"),
        *(str(private), "./private", "private", "me/mine", f"{address}/a.tar"),  # what a user may call so
    ):
        kept.dataset = f"{place}/train"
        assert dataset_of(kept).unnamed
    assert [each for each in seen if "socket" in each or "private" in each] == []
    with pytest.raises(ResidualError, match="Unknown dataset ''"):
        dataset_of(kept, name="")
    assert requests == []


def test_a_dataset_that_the_user_names_is_loaded_and_compared(picto, residual, tmp_path):
    place = write_folder(tmp_path / "digits", each=4)
    mine = load_dataset(f"folder:{place}", "train")
    encode_dataset(picto, mine, tmp_path / "store")
    words = ("describe", tmp_path / "store", "--dictionary", texts_in(tmp_path))
    words += ("--head", "7.0", "--atoms", 2)
    words += ("--page", tmp_path / "heads.html", "--overwrite")
    code, _, err = residual(*words, "--dataset", f"folder:{place}")
    assert (code, err) == (0, "")
    assert "<img " in (tmp_path / "heads.html").read_text(encoding="utf-8")
    code, _, err = residual(*words, "--dataset", "letters")
    assert (code, err.startswith("letters/train has other classes than ")) == (0, True)
    for name, message in (("lettrs", "Did you mean 'letters'"), ("folder:nowhere", "nowhere")):
        code, shown, err = residual(*words, "--dataset", name)
        assert (code, shown, message in err, err.count("\n")) == (2, "", True, 1)
    store = ResidualStore.open(tmp_path / "store")
    assert dataset_of(store).unnamed
    assert dataset_of(store, name=f"folder:{place}").images.sample_ids == mine.sample_ids
    assert dataset_of(store, mine).templates == mine.templates


def test_templates_of_the_papers_suite_are_known_without_its_pictures(picto, tmp_path, seen):
    images = TinyImages(12, name="cifar10")
    images.class_names = classes_of("cifar10").names
    store = encode_dataset(picto, images, tmp_path / "store")
    seen.clear()
    origin = dataset_of(store)
    assert (origin.images, origin.templates, origin.unnamed) == (None, templates_of("cifar10"), True)
    assert origin.notes == (
        "The dataset of the store, 'cifar10', isn't loaded because a store names it: pictures are left out.",
    )
    assert classifier_of(store, picto, origin).class_names == store.class_names
    assert [each for each in seen if "socket" in each] == []


@pytest.mark.usefixtures("whole_names")
def test_an_encoder_that_a_file_names_is_loaded_only_if_it_is_listed(residual, tmp_path, server, seen):
    address, requests = server
    private = tmp_path / "private"
    for name in ("me/mine", f"timm:{address}/{private}", "picto\x1b[2J"):
        store = tmp_path / "stores" / str(len(list(tmp_path.glob("stores/*"))))
        encoder = wrap_encoder(tiny_clip(dtype=torch.float32), name=name)
        made = encode_dataset(encoder, TinyImages(8), store, dtype="float32")
        rows = torch.eye(4, 12)
        classifier = ZeroShotClassifier(rows, made.class_names, fingerprint=encoder.fingerprint)
        AdaptedEncoder(encoder, Coarse(fit_bases(made)), classifier).save_pretrained(store / "adapter")
        seen.clear()
        code, shown, err = residual("evaluate", store / "adapter", "--dataset", "flags")
        assert (code, shown, err.count("\n"), "--encoder NAME" in err) == (2, "", 1, True), err
        for command in (("describe", store, "--dictionary", "words"), ("heads", store)):
            code, shown, err = residual(*command)
            assert (code, shown) == (2, "")
            assert err == (
                f"residual: The encoder of the store, {shareable(name)!r}, isn't loaded because a store "
                "names it: it is none that the library lists. Name the encoder that made the store: "
                "--encoder NAME.\n"
            )
        assert [each for each in seen if "socket" in each or "private" in each] == []
        with pytest.raises(StoreEncoderError, match="isn't loaded because a store names it"):
            encoder_of(ResidualStore.open(store))
        for load in (
            lambda store: encoder_of(ResidualStore.open(store), ""),
            lambda store: AdaptedEncoder.from_pretrained(store / "adapter", encoder=""),
        ):
            with pytest.raises(ResidualError, match="Unknown encoder ''"):
                load(store)
    assert requests == []


def test_a_listed_encoder_that_cannot_be_had(picto, residual, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ResidualError("There is no network.", "Mend it.")

    encode_dataset(picto, TinyImages(4), tmp_path / "store")
    monkeypatch.setattr("residual.workflows.store_origin.load_encoder", fail)
    code, shown, err = residual("heads", tmp_path / "store")
    told = "The encoder of the store, 'picto', can't be loaded: There is no network. Mend it. Name "
    assert (code, shown, err) == (
        2,
        "",
        f"residual: {told}the encoder that made the store: --encoder NAME.\n",
    )
