"""What is tried of every kind of file that others may have made: a good example, and what becomes of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import hostile as h
import yaml
from hypothesis import strategies as st

from residual.store.manifest import signed

LINKS = ("{secret}/canary.png", "{secret}/pipe", "/dev/zero", "{secret}")
PIPE = "a pipe"


@dataclass(frozen=True)
class Case:
    """A good example's files with some changed: bytes, None for one that is taken away, a text for a link."""

    entry: str
    example: str
    changed: dict[str, bytes | str | None]
    options: dict[str, Any] = field(default_factory=dict)
    as_before: bool = False  # refused, or the result is that of the good example

    def __repr__(self) -> str:
        changed = {
            name: data
            if not isinstance(data, bytes) or len(data) < 400
            else f"{data[:200]!r}… {len(data)} bytes"
            for name, data in self.changed.items()
        }
        return f"{self.entry} on {self.example}, {self.options}: {changed}"[:6000]


def settings(files: Any) -> st.SearchStrategy[Case]:
    def made(text: str, params: list[str], reader: str, file: bool) -> Case:
        options = {"reader": reader, "params": params, "file": file}
        return Case("settings", "settings", {"settings.gin": text.encode(errors="replace")}, options)

    readers = st.sampled_from(["run", "train", "encode", "describe"])
    return st.builds(made, h.SETTINGS, h.PARAMS, readers, st.sampled_from([True, True, True, False]))


def adapters(files: Any) -> st.SearchStrategy[Case]:
    """The config changed, or the tensors, and the digest of the tensors made anew."""

    def made(kind: str, changes: Any, part: str | None, more: Any) -> Case:
        good = files(f"adapter {kind}")
        config = json.loads(good["adapter_config.json"])
        tensors = good["adapter.safetensors"]
        if part is not None:
            tensors = _attempt(lambda: h.changed_tensors(tensors, more, part), tensors)
            config["sha256"] = hashlib.sha256(tensors).hexdigest()
        else:
            config = h.changed_json(config, changes)
        text = json.dumps(config).encode(errors="surrogatepass")
        changed = {"adapter_config.json": text, "adapter.safetensors": tensors}
        return Case("adapter", f"adapter {kind}", changed, {"given": kind != "picto"})

    def odd(kind: str, text: bytes) -> Case:
        return Case("adapter", f"adapter {kind}", {"adapter_config.json": text}, {"given": kind != "picto"})

    def of_units(changes: Any) -> Case:
        text = json.dumps(h.changed_json(json.loads(files("mask")["mask.json"]), changes))
        return Case("mask", "mask", {"mask.json": text.encode(errors="surrogatepass")})

    kinds = st.sampled_from(["residual", "coarse", "edited", "linear", "picto"])
    texts = st.sampled_from(
        [b"", b"[]", b"null", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"{}", b"1" * 5000]
    )
    return st.one_of(
        st.builds(made, kinds, h.CHANGES, st.none(), h.CHANGES),
        st.builds(made, kinds, h.CHANGES, h.TENSOR_PARTS, h.CHANGES),
        st.builds(odd, kinds, texts),
        st.builds(of_units, h.CHANGES),
        st.builds(lambda text: Case("mask", "mask", {"mask.json": text}), texts),
    )


def _signed_store(good: dict[str, bytes], manifest: Any, receipts: dict[str, Any]) -> dict[str, bytes]:
    """Manifest and receipts with checksums that fit, receipts that belong to the manifest."""
    changed = {}
    if isinstance(manifest, dict):
        manifest.pop("checksum", None)
        changed["manifest.json"] = _attempt(lambda: signed(manifest), json.dumps(manifest).encode())
        names = ("encoder", "dataset", "settings", "layout")
        told = {name: manifest.get(name) for name in names}
        mark = hashlib.sha256(json.dumps(told, indent=1).encode()).hexdigest()[:16]
    else:
        changed["manifest.json"], mark = json.dumps(manifest).encode(), ""
    for name, receipt in receipts.items():
        if isinstance(receipt, dict):
            receipt.pop("checksum", None)
            if mark and receipt.get("of") == json.loads(good[name])["of"]:
                receipt["of"] = mark
            changed[name] = signed(receipt)
        else:
            changed[name] = json.dumps(receipt).encode()
    return changed


def _store_files(draw: Any, good: dict[str, bytes]) -> dict[str, bytes | str | None]:
    manifest = json.loads(good["manifest.json"])
    receipts = {name: json.loads(data) for name, data in good.items() if name.startswith("receipts/")}
    what = draw(
        st.sampled_from(["manifest", "manifest", "layout", "receipt", "file", "link", "tensors", "exchange"])
    )
    changed: dict[str, bytes | str | None] = {}
    if what == "manifest":
        manifest = h.changed_json(manifest, draw(h.CHANGES))
    elif what == "layout":
        manifest["layout"] = h.changed_json(manifest["layout"], draw(h.CHANGES))
    elif what == "receipt":
        name = draw(st.sampled_from(sorted(receipts)))
        receipts[name] = h.changed_json(receipts[name], draw(h.CHANGES))
    elif what == "tensors":
        name = "linearization.safetensors"
        data = good[name]
        part, changes = draw(h.TENSOR_PARTS), draw(h.CHANGES)
        changed[name] = _attempt(lambda: h.changed_tensors(data, changes, part), data)
        manifest["files"][name] = hashlib.sha256(changed[name]).hexdigest()
    elif what == "exchange":
        shards = sorted(name for name in good if "/c/" in name)
        one, other = draw(st.sampled_from(shards)), draw(st.sampled_from(shards))
        changed |= {one: good[other], other: good[one]}
        if draw(st.booleans()):  # and the receipts tell of it
            for receipt in receipts.values():
                for name in receipt["checksums"]:
                    for file, data in changed.items():
                        if file.startswith(f"{name}/c/{receipt['shard']}"):
                            receipt["checksums"][name] = hashlib.sha256(data).hexdigest()
                            receipt["sizes"][name] = len(data)
    else:
        name = draw(st.sampled_from(sorted(good)))
        if what == "link":
            changed[name] = draw(st.sampled_from([*LINKS, PIPE]))
        else:
            changed[name] = draw(st.sampled_from([None, b"", b"{}", b"[" * 100_000, bytes(100)]))
            if name in manifest["files"] and changed[name] is not None:
                manifest["files"][name] = hashlib.sha256(changed[name]).hexdigest()
    return {**_signed_store(good, manifest, receipts), **changed}


def stores(files: Any) -> st.SearchStrategy[Case]:
    @st.composite
    def made(draw: Any) -> Case:
        entry, good = draw(st.sampled_from(["store", "store_unverified"])), files("store")
        if (
            draw(st.integers(0, 3)) == 3
        ):  # files of the right size in each other's place, and nothing tells of it
            shards = sorted(name for name in good if "/c/" in name)
            one = draw(st.sampled_from(shards))
            alike = [name for name in shards if name != one and len(good[name]) == len(good[one])]
            other = draw(st.sampled_from(alike or shards))
            return Case(entry, "store", {one: good[other], other: good[one]}, as_before=True)
        return Case(entry, "store", _store_files(draw, good))

    return made()


WORDS = [
    ["verify", "{place}"],
    ["analyze", "{place}"],
    ["bases", "{place}", "--out", "{place}/new.safetensors"],
    ["describe", "{place}", "--dictionary", "attributes", "--top", "2", "--page", "{place}/page.html"],
    ["heads", "{place}"],
]


def commands(files: Any) -> st.SearchStrategy[Case]:
    """The commands that read a store, on one whose manifest names what it likes."""

    @st.composite
    def made(draw: Any) -> Case:
        words = draw(st.sampled_from(WORDS))
        good = files("picto_store")
        if draw(st.booleans()):
            changed: Any = _store_files(draw, good)
        else:
            manifest = json.loads(good["manifest.json"])
            receipts = {name: json.loads(data) for name, data in good.items() if name.startswith("receipts/")}
            place, key = draw(
                st.sampled_from([("dataset", "name"), ("encoder", "name"), ("dataset", "class_names")])
            )
            name = draw(st.sampled_from([*h.ADDRESSES, *h.NAMES]))
            if key == "class_names":
                manifest[place][key] = [name, *manifest[place][key][1:]]
            else:
                manifest[place][key] = name
            changed = _signed_store(good, manifest, receipts)
        return Case("command", "picto_store", changed, {"words": words})

    return made()


def tensor_files(files: Any) -> st.SearchStrategy[Case]:
    """Bases, moments, checkpoints, outputs, results: their notes, headers and numbers."""

    def made(which: tuple[str, str, str], part: str, changes: Any) -> Case:
        entry, example, name = which
        data = files(example)[name]
        return Case(entry, example, {name: _attempt(lambda: h.changed_tensors(data, changes, part), data)})

    def cell(changes: Any) -> Case:
        name = "tiny/digits.parquet"
        return Case("results", "results", {name: h.changed_parquet(files("results")[name], changes)})

    numbers = st.builds(made, st.sampled_from(TENSOR_FILES), h.TENSOR_PARTS, h.CHANGES)
    return st.integers(0, 4).flatmap(lambda k: st.builds(cell, h.CHANGES) if k == 4 else numbers)


TENSOR_FILES = [
    *[("bases", "bases", "bases.safetensors"), ("moments", "moments", "part.moments")],
    *[("tensors", "outputs", "file.safetensors"), ("checkpoint", "checkpoint", "checkpoint.safetensors")],
]
DAMAGED = [("store", "store"), ("store_unverified", "store"), ("bases", "bases"), ("moments", "moments")]
DAMAGED += [
    ("results", "results"),
    ("tensors", "outputs"),
    ("checkpoint", "checkpoint"),
    ("adapter", "adapter residual"),
]


def damaged(files: Any) -> st.SearchStrategy[Case]:
    """One change of some bytes of whatever is written with a checksum: it is found, or changes nothing."""

    def made(which: tuple[str, str], place: int, change: Any) -> Case:
        entry, example = which
        good = files(example)
        names = sorted(name for name in good if name != "README.md")
        name = names[place % len(names)]
        return Case(entry, example, {name: h.changed_bytes(good[name], change)}, as_before=True)

    one = st.tuples(
        st.sampled_from(["flip", "flip", "flip", "zero", "cut"]), h.PLACE, st.integers(1, 255), st.just(2)
    )
    return st.builds(made, st.sampled_from(DAMAGED), h.PLACE, st.tuples(one))


def tars(files: Any) -> st.SearchStrategy[Case]:
    @st.composite
    def made(draw: Any) -> Case:
        good = files("shards")
        name = "shards/001.tar"
        what = draw(st.sampled_from(["members", "members", "bytes", "link", "size", "picture"]))
        if what == "members":
            tail = draw(st.sampled_from([bytes(1024), b""]))
            data: bytes | str = (
                h.tar(draw(h.MEMBERS)) + draw(st.sampled_from([b"", good[name][:-10_240]])) + tail
            )
        elif what == "bytes":
            data = h.changed_bytes(good[name], draw(h.BYTES))
        elif what == "link":
            data = draw(st.sampled_from(["/dev/zero", PIPE]))
        elif what == "size":  # of the picture of a sample that is otherwise whole
            size = draw(h.SIZES)
            head = h.tar_header("q.cls", 1) + b"1".ljust(512, b"\0") + h.tar_header("q.png", size)
            data = head + draw(st.sampled_from([b"", bytes(512)])) + good[name]
        else:
            picture = draw(h.DAMAGED_PICTURES)
            data = h.tar([("q.png", len(picture), b"0", picture), ("q.cls", 1, b"0", b"1")]) + good[name]
        changed: dict[str, Any] = {name: data}
        if draw(st.integers(0, 3)) == 3:
            changed["shards/nshards.txt"] = draw(st.sampled_from([b"9" * 6, b"-1", b"1e9", b"\xff"]))
        return Case("pictures", "shards", changed, {"dataset": "wds:{place}/shards/{000..001}.tar"})

    return made()


CELLS = [
    *(
        "{secret}/canary.png",
        "/dev/zero",
        "{secret}/pipe",
        "../../secret/canary.png",
        "file://{secret}/canary.png",
    ),
    *("http://127.0.0.1:9/x.png", "zip://a::http://127.0.0.1:9/x", "", "\0", "x" * 5000, "/etc/passwd", "."),
    *("reference://::{secret}/canary.png", "data-00000-of-00001.arrow", "pipe", "link.png"),
]


def tables(files: Any) -> st.SearchStrategy[Case]:
    """Tables whose cells name files, hold pictures, or whose own files were changed."""

    @st.composite
    def made(draw: Any) -> Case:
        good = files("table")
        options = {"dataset": "disk:{place}", "split": draw(st.sampled_from(["train", "test"]))}
        what = draw(st.sampled_from(["cells", "cells", "json", "bytes", "link", "picture"]))
        changed: dict[str, Any] = {}
        if what in ("cells", "picture"):
            cell = draw(st.sampled_from(CELLS)) if what == "cells" else draw(h.DAMAGED_PICTURES)
            options["cell"] = cell if isinstance(cell, str) else cell.hex()
            options["texts"] = what == "cells" and draw(st.booleans())
            options["picture"] = what == "picture"
            changed |= {"train/pipe": PIPE, "train/link.png": "{secret}/canary.png"}
        elif what == "json":
            name = draw(st.sampled_from(sorted(name for name in good if name.endswith(".json"))))
            changed[name] = json.dumps(h.changed_json(json.loads(good[name]), draw(h.CHANGES))).encode()
        else:
            name = draw(st.sampled_from(sorted(good)))
            link = draw(st.sampled_from(["/dev/zero", PIPE]))
            changed[name] = h.changed_bytes(good[name], draw(h.BYTES)) if what == "bytes" else link
        return Case("pictures", "table", changed, options)

    return made()


EVIL = b"open('ran', 'w').close()\nimport os\nos.system('touch ran')\nclass Evil: pass\n"
PLACES = [
    *("{secret}/canary.png", "{secret}/*", "../../secret/*", "data/../../../secret/canary.png"),
    *("http://127.0.0.1:9/x.parquet", "hf://datasets/a/b/x.parquet", "https://example.invalid/x.csv"),
    *("zip://*::data/x.zip", "simplecache::http://127.0.0.1:9/x", "data/pipe"),
    *("**", "data/*", "/dev/zero", "/etc/passwd"),
]


def repositories(files: Any) -> st.SearchStrategy[Case]:
    """Clones of repositories: what their cards name, scripts and other files in them, damaged tables."""

    @st.composite
    def made(draw: Any) -> Case:
        good = files("repository")
        card = yaml.safe_load(good["README.md"].decode().split("---")[1])
        what = draw(st.sampled_from(["place", "place", "card", "bytes", "beside"]))
        changed: dict[str, Any] = {"data/pipe": PIPE}
        if what == "place":
            place = draw(st.sampled_from(PLACES))
            given: Any = [{"split": "train", "path": place}, {"split": "test", "path": "data/test-*"}]
            card["configs"][0]["data_files"] = draw(
                st.sampled_from([given, place, [place], {"train": place}])
            )
            card["configs"][0] |= draw(st.sampled_from([{}, {"data_dir": place}, {"base_path": place}]))
        elif what == "card":
            card = h.changed_json(card, draw(h.CHANGES))
        elif what == "bytes":
            name = draw(st.sampled_from(sorted(good)))
            changed[name] = h.changed_bytes(good[name], draw(h.BYTES))
        else:
            name = draw(
                st.sampled_from(["files.py", "data.py", "data/train.csv", "dataset_infos.json", "data/x.zip"])
            )
            csv = b"image,label\n{secret}/canary.png,0\n/dev/zero,1\n"
            changed[name] = draw(st.sampled_from([EVIL, csv, b"{}", b"[" * 100_000, "/dev/zero", PIPE]))
        if what != "bytes":
            changed["README.md"] = f"---\n{json.dumps(card)}\n---\n".encode()
        options = {"dataset": "hf:{place}", "split": draw(st.sampled_from(["train", "test"]))}
        return Case("pictures", "repository", changed, options)

    return made()


def pictures(files: Any) -> st.SearchStrategy[Case]:
    def made(data: bytes, suffix: str) -> Case:
        return Case("pictures", "folder", {f"train/cat/x.{suffix}": data})

    links = st.builds(
        lambda link: Case("pictures", "folder", {"train/cat/x.png": link}),
        st.sampled_from(["/dev/zero", PIPE]),
    )
    drawn = st.builds(made, h.DAMAGED_PICTURES, st.sampled_from(["png", "jpg", "gif"]))
    return st.integers(0, 19).flatmap(lambda k: links if k == 19 else drawn)


LISTS = st.one_of(
    st.lists(st.sampled_from(h.NAMES), max_size=3)
    .map("\n".join)
    .map(lambda text: text.encode(errors="replace")),
    st.sampled_from(
        [b"\xff\xfe", b"", b"\n\n", b"a\n" * 200_000, b"[" * 100_000, b"a\0b\nc", b"x" * 10**6 + b"\ny"]
    ),
    st.binary(max_size=30),
)


def names(files: Any) -> st.SearchStrategy[Case]:
    """Names of classes, templates, texts of a dictionary, manifests of splits."""

    @st.composite
    def made(draw: Any) -> Case:
        what = draw(st.sampled_from(["classes", "classes", "templates", "texts", "manifest"]))
        if what == "manifest":
            fields = h.changed_json(json.loads(files("listed")["manifest-train.json"]), draw(h.CHANGES))
            return Case("manifest", "listed", {"manifest-train.json": json.dumps(fields).encode()})
        if what == "texts":
            return Case("texts", "texts", {"texts.txt": draw(LISTS)})
        if what == "templates":
            lines = draw(
                st.sampled_from(
                    [b"{c}{c}", b"{c!r}", b"{0.__class__}{c}", b"{c:>99999999}", b"\xff", b"{c}\0"]
                )
            )
            return Case("names", "shards", {"shards/zeroshot_classification_templates.txt": lines})
        two = st.lists(st.sampled_from(h.NAMES), min_size=2, max_size=2, unique=True).map("\n".join)
        lines = draw(st.one_of(LISTS, two.map(lambda text: text.encode(errors="replace"))))
        return Case("names", "shards", {"shards/classnames.txt": lines})

    return made()


ASKS = [
    {"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}},
    {"trust_remote_code": True, "auto_map": {"AutoImageProcessor": "evil.Evil"}},
    {"quantization_config": {"quant_method": "x"}},
    {"attn_implementation": "someone/kernels"},
    {"model_type": "evil"},
    {"tokenizer_class": "Evil"},
    {"image_processor_type": "Evil"},
    {"image_processor_type": "os.system"},
    {"size": {"height": 10**6, "width": 10**6}},
    {"size": {"shortest_edge": 0}},
    {"crop_size": {"height": 100_000, "width": 100_000}},
    {"vision_config": {"image_size": 10**6}},
    {"vision_config": {"num_hidden_layers": 10**6}},
    {"architecture": "vit_giant_patch14_224"},
    {
        "model_cfg": {
            "text_cfg": {"hf_tokenizer_name": "{place}", "tokenizer_kwargs": {"trust_remote_code": True}}
        }
    },
    {"model_cfg": {"text_cfg": {"hf_model_name": "{place}", "hf_model_pretrained": True}}},
    {"model_cfg": {"vision_cfg": {"timm_model_name": "hf-hub:someone/evil", "timm_model_pretrained": True}}},
    {"vision_cfg": {"width": 10**6, "layers": 10**6}},
]
MODELS = {"hf": "hf:{place}", "open_clip": "open_clip:{place}", "timm": "timm:{place}"}


def models(files: Any) -> st.SearchStrategy[Case]:
    """Folders of models: what their configs ask for, the headers of their weights, other files beside."""

    @st.composite
    def made(draw: Any) -> Case:
        kind = draw(st.sampled_from(sorted(MODELS)))
        good = files(f"model {kind}")
        texts = sorted(name for name in good if name.endswith(".json"))
        what = draw(st.sampled_from(["ask", "ask", "json", "json", "weights", "bytes", "beside"]))
        changed: dict[str, Any] = {"evil.py": EVIL}
        name = draw(st.sampled_from(texts))
        if what == "ask":
            fields = json.loads(good[name])
            changed[name] = json.dumps(_merged(fields, draw(st.sampled_from(ASKS)))).encode()
            if draw(st.booleans()):
                extra = {"auto_map": {"AutoConfig": "evil.Evil"}, "model_type": "evil"}
                changed.setdefault("config.json", json.dumps(extra).encode())
                changed["tokenizer_config.json"] = json.dumps(
                    {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
                ).encode()
        elif what == "json":
            changed[name] = json.dumps(h.changed_json(json.loads(good[name]), draw(h.CHANGES))).encode()
        elif what == "weights":
            weights = next(name for name in good if name.endswith(".safetensors"))
            part, changes = draw(st.sampled_from(["header", "nan", "inf", "huge"])), draw(h.CHANGES)
            data = good[weights]
            changed[weights] = _attempt(lambda: h.changed_tensors(data, changes, part), data)
        elif what == "bytes":
            name = draw(st.sampled_from(sorted(good)))
            changed[name] = h.changed_bytes(good[name], draw(h.BYTES))
        else:
            name = draw(
                st.sampled_from(["pytorch_model.bin", "model.safetensors.index.json", "merges.txt", *good])
            )
            changed[name] = draw(
                st.sampled_from([b"", b"\x80\x04cos\nsystem\n(S'touch ran'\ntR.", b"{}", "/dev/zero", PIPE])
            )
            if name == "pytorch_model.bin":
                changed["model.safetensors"] = None
        return Case("model", f"model {kind}", changed, {"name": MODELS[kind]})

    return made()


def _merged(fields: Any, more: dict[str, Any]) -> Any:
    if not isinstance(fields, dict):
        return more
    made = dict(fields)
    for key, value in more.items():
        made[key] = _merged(made.get(key), value) if isinstance(value, dict) else value
    return made


def _attempt(make: Any, otherwise: Any) -> Any:
    """What can't be written down stays as it was."""
    try:
        return make()
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, AttributeError):
        return otherwise


KINDS = {
    each.__name__: each
    for each in (
        *(settings, adapters, stores, commands, tensor_files, damaged),
        *(tars, tables, repositories, pictures, names, models),
    )
}
