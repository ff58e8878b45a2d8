"""From files to pixels by every road: Pillow's numbers where another decoder isn't to be trusted, and near
them where it is; the same samples read and left out, for the same reasons.
"""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tiny import TinyImages, tiny_encoder

from residual.data import load_dataset
from residual.data.jpeg import plain_jpeg
from residual.encoders.halves import halves_of
from residual.encoders.preprocess import OnWhite, Preprocess, Unrounded
from residual.errors import OtherResultError, ResidualError, UnreadableImageError
from residual.spectral import UnitMoments, stream_moments
from residual.store import ResidualStore, encode_dataset
from residual.store.decoding import decode_files, road
from residual.store.encoding import Encoding
from residual.store.pieces import Reader
from residual.store.reading import read_pixels

WITHOUT_GPU = "no CUDA, or no nvJPEG in torchvision"


def photo(height: int = 61, width: int = 90, mode: str = "RGB", seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(1, height // 5), max(1, width // 5), 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def file_of(image: Image.Image, kind: str = "JPEG", **how) -> bytes:
    kept = io.BytesIO()
    image.save(kept, kind, **how)
    return kept.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return file_of(photo(), exif=exif)


def changed(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new, 1)


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + (len(body) + 2).to_bytes(2, "big") + body


def with_segments(content: bytes, place: bytes, *added: bytes) -> bytes:
    """In front of what begins with `place`."""
    return changed(content, place, b"".join(added) + place)


MOTOROLA = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
INTEL = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><a tiff:Orientation="6"/></x:xmpmeta>'


def odd_heads(whole: bytes) -> dict[str, tuple[str, bytes]]:
    """What else stands in the heads of JPEGs."""
    scan, tables, small = b"\xff\xda\0\x0c", b"\xff\xdb", file_of(photo(9, 9))
    return {
        "turned in front of all": ("Pillow", with_segments(whole, b"\xff\xe0", segment(0xE1, MOTOROLA))),
        "turned behind all": ("Pillow", with_segments(whole, scan, segment(0xE1, INTEL))),
        "turned behind a note": (
            "Pillow",
            with_segments(whole, scan, segment(0xE1, b"something"), segment(0xE1, MOTOROLA)),
        ),
        "turned by XMP": ("Pillow", with_segments(whole, scan, segment(0xE1, XMP))),
        "filled up": ("Pillow", with_segments(whole, tables, b"\xff")),
        "colours of Adobe's": (
            "Pillow",
            with_segments(whole, tables, segment(0xEE, b"Adobe\0d\0\0\0\0\0")),
        ),
        "the usual ones of Adobe's": (
            "elsewhere",
            with_segments(whole, tables, segment(0xEE, b"Adobe\0d\0\0\0\0\1")),
        ),
        "of the extended kind": ("Pillow", changed(whole, b"\xff\xc0\0\x11", b"\xff\xc1\0\x11")),
        "a picture within": ("elsewhere", with_segments(whole, scan, segment(0xE3, small))),
        "two frames": ("refused", with_segments(whole, scan, whole[whole.index(b"\xff\xc0") :][:19])),
    }


def files() -> dict[str, tuple[str, bytes]]:
    """What becomes of each: "elsewhere" decoded, "Pillow" alone, or "refused"."""
    whole, other = file_of(photo()), photo(seed=1)
    made = {f"sampled {name}": ("elsewhere", file_of(photo(), subsampling=name)) for name in (0, 1, 2)}
    made |= {
        f"{h} by {w}": ("elsewhere", file_of(photo(h, w)))
        for h, w in ((1, 1), (1, 2), (7, 5), (16, 16), (33, 47), (31, 200), (3, 250))
    }
    made["optimised"] = "elsewhere", file_of(other, optimize=True, quality=97)
    made["restarts"] = "elsewhere", file_of(other, restart_marker_rows=1)
    made["a comment"] = "elsewhere", file_of(other, comment="a" * 300)
    made["upright"] = "elsewhere", turned(1)
    made |= {f"turned {number}": ("Pillow", turned(number)) for number in range(2, 9)}
    made |= odd_heads(whole)
    made["progressive"] = "Pillow", file_of(other, progressive=True)
    made["grey"] = "Pillow", file_of(photo(mode="L"))
    made["CMYK"] = "Pillow", file_of(photo(mode="CMYK"))
    made["RGB"] = "Pillow", file_of(other, keep_rgb=True)
    made["more behind it"] = "Pillow", whole + b"\0" * 20
    made["two in one"] = "Pillow", file_of(other, "MPO", save_all=True, append_images=[photo()])
    made["16 bit"] = (
        "Pillow",
        file_of(Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27), "PNG"),
    )
    made["alpha"] = "Pillow", file_of(photo(mode="RGBA"), "PNG")
    made["animated"] = "Pillow", file_of(photo(mode="P"), "GIF", save_all=True, append_images=[other])
    made["a palette"] = "Pillow", file_of(photo(mode="P"), "PNG")
    made["WebP"] = "Pillow", file_of(other, "WEBP")
    made["12 bit"] = "refused", changed(whole, b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")
    made["cut off"] = "refused", whole[: len(whole) // 2]
    made["cut off in its head"] = "refused", whole[:200] + b"\xff\xd9"
    made["no codes"] = "Pillow", changed(whole, b"\xff\xc4", b"\xff\xec")
    made["too long"] = "refused", file_of(photo(2, 250))
    made["empty"] = "refused", b""
    made["no picture"] = "refused", b"hello"
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("roads")
    for number, (name, (_, content)) in enumerate(files().items()):
        for split in ("train", "test"):
            kept = place / split / f"class {number % 2}" / f"{name}.jpg"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(content)
    return load_dataset(f"folder:{place}", "test")


ENCODERS = {
    "transformers": Preprocess(36, (32, 32)),
    "transformers, not rounded": Unrounded((32, 32), None),
    "open_clip": OnWhite(image_transform_v2(PreprocessCfg(size=32), is_train=False)),
}


def encoder_with(preprocess, device="cpu"):
    encoder = tiny_encoder(dtype=torch.float32).to(device)
    encoder.preprocess = preprocess
    return encoder


def read(encoder, dataset, decode, workers=0):
    """Pixels by position, digests and reasons."""
    batches = [range(at, min(at + 7, len(dataset))) for at in range(0, len(dataset), 7)]
    pixels, digests, skipped = {}, {}, {}
    for each in read_pixels(encoder, dataset, batches, workers, True, decode):
        rows = each.pixels[0].cpu() if each.pixels else []
        pixels |= dict(zip(each.positions, rows, strict=True))
        digests |= dict(zip(each.positions, each.digests, strict=True))
        skipped |= each.skipped
    return pixels, digests, skipped


def compare(encoder, dataset, most, workers=0):
    """By both roads; by so many 8-bit levels and so many in the mean may those decoded elsewhere differ."""
    told = {f"{name}.jpg": what for name, (what, _) in files().items()}
    whats = [told[sample.rpartition("/")[2]] for sample in dataset.sample_ids]
    plain, ours = read(encoder, dataset, "cpu"), read(encoder, dataset, "gpu", workers)
    assert plain[1:] == ours[1:]
    assert list(plain[2]) == [at for at, what in enumerate(whats) if what == "refused"]
    levels = torch.tensor(getattr(encoder.preprocess, "std", (0.27, 0.27, 0.27))).view(3, 1, 1) * 255
    for at, seen in plain[0].items():
        assert torch.equal(seen, encoder.preprocess(dataset.load(at)))
        if whats[at] == "Pillow":
            assert torch.equal(seen, ours[0][at]), dataset.sample_ids[at]
        else:
            gap = ((seen - ours[0][at]) * levels).abs()
            assert gap.max() <= most[0], dataset.sample_ids[at]
            assert gap.mean() <= most[1], dataset.sample_ids[at]


@pytest.mark.parametrize("name", ENCODERS)
def test_all_roads_lead_to_the_same_pixels(folder, name, recwarn):
    compare(encoder_with(ENCODERS[name]), folder, (0, 0) if name != "open_clip" else (1.1, 0.5))


def test_workers_hand_over_files_and_pictures_in_their_order(folder):
    compare(encoder_with(ENCODERS["transformers"]), folder, (0, 0), workers=2)
    with pytest.raises(UnreadableImageError, match=r"'test/class [01]/.*\.jpg' can't be read"):
        list(read_pixels(encoder_with(ENCODERS["open_clip"]), folder, [range(len(folder))], 0, False, "gpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason=WITHOUT_GPU)
@pytest.mark.parametrize("name", ENCODERS)
def test_all_roads_lead_to_nearly_the_same_pixels_on_a_gpu(folder, name):
    encoder = encoder_with(ENCODERS[name], "cuda")
    assert road("auto", encoder, folder) == "gpu"
    for workers in (0, 2):
        compare(encoder, folder, (64, 12), workers)


def test_only_plain_jpegs_are_decoded_elsewhere():
    for name, (what, content) in files().items():
        assert (plain_jpeg(content) is not None) == (what == "elsewhere" or name == "too long"), name
    rng, whole = np.random.default_rng(0), bytearray(file_of(photo(40, 40)))
    for _ in range(300):  # what Pillow refuses doesn't travel, or the other decoder refuses it, too
        broken = bytearray(whole)
        broken[rng.integers(2, 700)] = rng.integers(0, 256)
        if plain_jpeg(bytes(broken)) is None:
            continue
        given = torch.from_numpy(np.frombuffer(bytes(broken), np.uint8).copy())
        (decoded,) = decode_files(given, [len(given)], torch.device("cpu"))
        try:
            seen = np.array(Image.open(io.BytesIO(broken)).convert("RGB"))
        except OSError:
            assert decoded is None
        else:
            assert decoded is None or np.array_equal(decoded.permute(1, 2, 0).numpy(), seen)


def test_what_the_other_decoder_refuses_is_pillows(folder, monkeypatch):
    monkeypatch.setattr(
        "residual.store.reading.decode_files", lambda data, lengths, device: [None] * len(lengths)
    )
    compare(encoder_with(ENCODERS["open_clip"]), folder, (0, 0))
    monkeypatch.setattr("residual.store.pieces.plain_jpeg", lambda content: (40, 40))  # of whatever comes
    compare(encoder_with(ENCODERS["transformers"]), folder, (0, 0))


def test_a_store_notes_its_road_and_auto_keeps_to_it(folder, tmp_path, monkeypatch):
    encoder = encoder_with(ENCODERS["transformers"])
    some = folder.subset([at for at, name in enumerate(folder.sample_ids) if "sampled" in name])
    with pytest.raises(ResidualError, match=r"can't be decoded on the GPU: the encoder runs on the cpu, and"):
        encode_dataset(encoder, some, tmp_path / "gpu", decode="gpu")
    encode_dataset(encoder, some, tmp_path / "cpu")
    monkeypatch.setattr("residual.store.decoding.lacking", lambda device: "")
    encode_dataset(encoder, some, tmp_path / "gpu")
    for name, settings in (("cpu", {}), ("gpu", {"decode": "gpu"})):
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        assert {"pooling", "kinds", "dtype"} ^ manifest["settings"].keys() == settings.keys()
        encode_dataset(encoder, some, tmp_path / name, check="all")
        assert not ResidualStore.open(tmp_path / name).verify()
    with pytest.raises(OtherResultError, match="pictures decoded on the gpu, not cpu"):
        encode_dataset(encoder, some, tmp_path / "gpu", decode="cpu")
    with pytest.raises(OtherResultError, match="pictures decoded on the cpu, not gpu"):
        encode_dataset(encoder, some, tmp_path / "cpu", decode="gpu")
    monkeypatch.undo()
    with pytest.raises(ResidualError, match="on the GPU, as this store was begun: the encoder runs on"):
        encode_dataset(encoder, some, tmp_path / "gpu")


def test_moments_of_parts_that_were_decoded_otherwise_do_not_merge(folder, tmp_path, monkeypatch):
    encoder = encoder_with(ENCODERS["transformers"])
    some = folder.subset([at for at, name in enumerate(folder.sample_ids) if "sampled" in name])
    encode = partial(stream_moments, encoder, some)
    whole = encode(Encoding(kinds=("head",)), part=(1, 3))
    assert "roads" not in whole.progress
    monkeypatch.setattr("residual.store.decoding.lacking", lambda device: "")
    for number in (2, 3):
        encode(Encoding(kinds=("head",)), part=(number, 3)).save(tmp_path / str(number))
    second, third = (UnitMoments.load(tmp_path / name) for name in "23")
    second.merge(third)
    with pytest.raises(ResidualError, match="pictures of one were decoded on the cpu, those"):
        whole.merge(second)
    other = UnitMoments.load(tmp_path / "2")
    other.origin, other.progress = replace(other.origin, datasets=("other/train",)), {}
    other.merge(second)  # another dataset may have been
    with pytest.raises(ResidualError, match="pictures of one were decoded on the gpu, those of the other on"):
        other.merge(whole)


def test_pictures_that_would_be_enlarged_stay_with_pillow():
    reader = Reader(TinyImages(1), None, halves_of(ENCODERS["open_clip"]).geometry, False)
    for height, width, travels in ((32, 32, True), (61, 90, True), (31, 90, False), (31, 31, False)):
        assert reader._travels(file_of(photo(height, width))) == travels, (height, width)


def test_large_pictures_take_bounded_memory(folder, monkeypatch):
    monkeypatch.setattr("residual.store.reading._MOST_WAITING", 100)
    monkeypatch.setattr("residual.encoders.halves._AT_ONCE", 61 * 90)
    compare(encoder_with(ENCODERS["transformers"]), folder, (0, 0))
    monkeypatch.setattr("residual.store.pieces._MOST_DECODED", 0)
    compare(encoder_with(ENCODERS["open_clip"]), folder, (0, 0))


def test_why_pictures_stay_on_the_cpu(folder):
    encoder, files_ = encoder_with(ENCODERS["open_clip"]), folder
    assert road("auto", encoder, files_) == "cpu"
    assert road("auto", encoder, files_, lacks="") == "gpu"
    for change, dataset, why in (
        (ENCODERS["open_clip"], TinyImages(4), "isn't made of image files"),
        (lambda image: image, files_, "what the preprocessing of tiny does isn't known step by step"),
    ):
        with pytest.raises(ResidualError, match=why):
            road("gpu", encoder_with(change), dataset, lacks="")
        assert road("auto", encoder_with(change), dataset, lacks="") == "cpu"
    with pytest.raises(ResidualError, match="decode is 'auto', 'cpu', 'gpu'; got 'card'"):
        replace(Encoding(), decode="card")
