"""A folder of 1,000 images with 20 broken or odd ones: the broken are named, and no good one is lost."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_encoder

from residual.data import ImageDataset, load_dataset
from residual.data.decode import decode_image
from residual.errors import ResidualError, UnreadableImageError
from residual.store.encode import encode_dataset

# There is a text among the pictures, which is told; `test_image_folder` looks at how.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Image folder .* 'cat/notes.txt':residual.errors.LeftOutWarning"
)
SPLITS = ("train", "val", "test")
CLASSES = ("badger", "cat", "dog", "owl")
SIZE = 24
RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 160, 0), (0, 0, 255), (128, 128, 128)
CORNERS = (RED, GREEN, BLUE, GREY)  # top left, top right, bottom left, bottom right
# How a picture is turned before it is stored so that its EXIF orientation turns it back.
STORED = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
}


def quarters(colours=CORNERS, size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    """Four areas of one colour each; whatever turns or swaps them is seen."""
    image = Image.new("RGB", size)
    w, h = size[0] // 2, size[1] // 2
    for place, colour in enumerate(colours):
        x, y = place % 2 * w, place // 2 * h
        image.paste(colour, (x, y, x + w, y + h))
    return image


def corners_of(image: Image.Image) -> list[tuple[int, ...]]:
    w, h = image.size
    return [image.getpixel((x, y)) for y in (h // 4, 3 * h // 4) for x in (w // 4, 3 * w // 4)]


def looks_like(image: Image.Image, colours, tolerance: int = 0) -> bool:
    off = np.abs(np.array(corners_of(image), int) - np.array(colours, int)).max()
    return image.mode == "RGB" and off <= tolerance


def coded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int, kind: str, image: Image.Image | None = None) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    return coded(STORED[orientation](image or quarters(size=(32, 20))), kind, exif=exif, **options)


def animated(kind: str) -> bytes:
    later = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("black", "white")]
    options = {"lossless": True} if kind == "WEBP" else {}
    return coded(quarters(), kind, save_all=True, append_images=later, duration=50, **options)


def half_grey_16_bits() -> bytes:
    return coded(Image.fromarray(np.full((SIZE, SIZE), 128 * 257, np.uint16)), "PNG")


def cmyk() -> bytes:
    inks = [(0, 255, 255, 0), (255, 0, 255, 95), (255, 255, 0, 0), (0, 0, 0, 127)]
    image = Image.new("CMYK", (SIZE, SIZE))
    for place, ink in enumerate(inks):
        x, y = place % 2 * 12, place // 2 * 12
        image.paste(ink, (x, y, x + 12, y + 12))
    return coded(image, "JPEG", quality=95, subsampling=0)


def palette_with_transparency() -> bytes:
    """Grey, bottom right, is see-through."""
    image = quarters().quantize(4)
    return coded(image, "PNG", transparency=image.getpixel((20, 20)))


def grey_with_transparency() -> bytes:
    """See-through, half, full black, full grey."""
    image = Image.new("LA", (SIZE, SIZE))
    for place, pixel in enumerate([(0, 0), (0, 128), (0, 255), (128, 255)]):
        x, y = place % 2 * 12, place // 2 * 12
        image.paste(pixel, (x, y, x + 12, y + 12))
    return coded(image, "PNG")


WHITE, BLACK = (255, 255, 255), (0, 0, 0)
# File name, content, the four colours to be seen, how far off they may be.
ODD = {
    "png-inside.jpg": (coded(quarters(), "PNG"), CORNERS, 0),
    "cmyk.jpg": (cmyk(), CORNERS, 6),
    "progressive.jpg": (coded(quarters(), "JPEG", progressive=True, quality=95, subsampling=0), CORNERS, 6),
    "sixteen-bits.png": (half_grey_16_bits(), [GREY] * 4, 0),
    "animated.gif": (animated("GIF"), CORNERS, 0),
    "animated.webp": (animated("WEBP"), CORNERS, 0),
    "animated.png": (animated("PNG"), CORNERS, 0),
    "upside-down.jpg": (turned(3, "JPEG"), CORNERS, 6),
    "on-its-side.jpg": (turned(6, "JPEG"), CORNERS, 6),
    "mirrored.jpeg": (turned(5, "JPEG"), CORNERS, 6),
    "on-its-side.PNG": (turned(8, "PNG"), CORNERS, 0),
    "palette.png": (palette_with_transparency(), (RED, GREEN, BLUE, WHITE), 0),
    "la.png": (grey_with_transparency(), (WHITE, (127, 127, 127), BLACK, GREY), 0),
    "one-bit.png": (
        coded(quarters((BLACK, WHITE, WHITE, BLACK)).convert("1"), "PNG"),
        (BLACK, WHITE, WHITE, BLACK),
        0,
    ),
}
BROKEN = {
    "cut.jpg": coded(quarters(), "JPEG")[:-100],
    "cut.png": coded(Image.effect_noise((SIZE, SIZE), 50), "PNG")[:-200],
    "cut.webp": coded(quarters(), "WEBP", lossless=True)[:-20],
    "text.png": b"This is no picture.\n",
    "empty.gif": b"",
    "link-to-nothing.jpg": None,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """`CLASS/NUMBER.png`, and the odd ones among them in place of others."""
    root = tmp_path_factory.mktemp("thousand")
    odd = list(ODD | BROKEN)
    rng = random.Random(7)
    places = dict(zip(sorted(rng.sample(range(1000), len(odd))), rng.sample(odd, len(odd)), strict=True))
    for number in range(1000):
        path = root / CLASSES[number % 4] / f"{number:04d}.png"
        path.parent.mkdir(exist_ok=True)
        if number not in places:
            path.write_bytes(coded(plain(number), "PNG"))
            continue
        name = places[number]
        path = path.with_name(f"{number:04d}-{name}")
        if name == "link-to-nothing.jpg":
            path.symlink_to(root / "nothing.jpg")
        else:
            path.write_bytes(BROKEN[name] if name in BROKEN else ODD[name][0])
    (root / "cat" / "a-folder.png").mkdir()
    (root / "cat" / "notes.txt").write_text("no picture by its name")
    return root


def plain(number: int) -> Image.Image:
    return Image.new("RGB", (SIZE, SIZE), (number % 256, 60 * (number // 256), 30))


def kind_of(sample_id: str) -> str:
    """The name of an odd one, "" for the others."""
    return sample_id.rpartition("/")[2][:-4].partition("-")[2] and sample_id.rpartition("/")[2][5:]


def test_there_are_a_thousand_and_twenty_are_odd(folder):
    ids = [i for split in SPLITS for i in load_dataset(f"folder:{folder}", split).sample_ids]
    assert len(ids) == len(set(ids)) == 1000
    assert sorted(filter(None, map(kind_of, ids))) == sorted(ODD | BROKEN)
    assert len(ODD | BROKEN) == 20


@pytest.mark.parametrize("split", SPLITS)
def test_skip_goes_on_and_loses_nothing_else(folder, split):
    data = load_dataset(f"folder:{folder}", split)
    encoder = tiny_encoder()
    broken = tuple(i for i in data.sample_ids if kind_of(i) in BROKEN)
    good = [place for place, i in enumerate(data.sample_ids) if kind_of(i) not in BROKEN]
    store = encode_dataset(encoder, data, on_error="skip")
    assert tuple(store.skipped) == broken
    assert tuple(store.sample_ids) == tuple(data.sample_ids[place] for place in good)
    assert [CLASSES[label] for label in store.labels] == [i.partition("/")[0] for i in store.sample_ids]
    alone = encode_dataset(encoder, data.subset(good))
    np.testing.assert_allclose(store.output().numpy(), alone.output().numpy(), rtol=1e-6, atol=1e-9)
    for place in good:
        image, label = data[place]
        name = data.sample_ids[place]
        assert CLASSES[label] == name.partition("/")[0]
        if kind := kind_of(name):
            _, colours, tolerance = ODD[kind]
            assert looks_like(image, colours, tolerance), (kind, corners_of(image))
        else:
            assert image.tobytes() == plain(int(Path(name).stem)).tobytes()


def test_raise_names_the_first_broken_file(folder):
    seen = []
    for split in SPLITS:
        data = load_dataset(f"folder:{folder}", split)
        broken = [i for i in data.sample_ids if kind_of(i) in BROKEN]
        seen += broken
        if broken:
            with pytest.raises(UnreadableImageError, match=rf"{broken[0]}.* on_error=.skip.") as caught:
                encode_dataset(tiny_encoder(), data)
            assert caught.value.sample_id == broken[0]
    assert len(seen) == len(BROKEN)


def test_a_folder_of_broken_images_only(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for place in range(3):
            (tmp_path / name / f"{place}.png").write_bytes(b"")
    data = load_dataset(f"folder:{tmp_path}", "train")
    with pytest.raises(ResidualError, match="None of the 2 images"):
        encode_dataset(tiny_encoder(), data, on_error="skip")


def test_files_and_folders_that_are_closed_to_us(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for place in range(3):
            (tmp_path / name / f"{place}.png").write_bytes(coded(quarters(), "PNG"))
    data: ImageDataset = load_dataset(f"folder:{tmp_path}", "train")
    (tmp_path / data.sample_ids[0]).chmod(0)
    with pytest.raises(UnreadableImageError, match="Permission denied"):
        data[0]
    assert data[1][0].mode == "RGB"
    (tmp_path / "a").chmod(0)
    with pytest.raises(ResidualError, match=r"Folder '.*/a' can't be read: Permission denied"):
        load_dataset(f"folder:{tmp_path}", "train")
    (tmp_path / "a").chmod(0o700)


def test_what_a_disk_keeps_for_itself_is_no_class(tmp_path):
    for name in ("a", "b", "lost+found", ".Trash-0"):
        (tmp_path / name).mkdir()
        for place in range(3):
            (tmp_path / name / f"{place}.png").write_bytes(coded(quarters(), "PNG"))
    assert load_dataset(f"folder:{tmp_path}", "train").class_names == ("a", "b")


def test_links_to_images_are_images_and_links_in_a_ring_are_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for place in range(3):
            (tmp_path / name / f"{place}.png").write_bytes(coded(quarters(), "PNG"))
    (tmp_path / "a" / "3.png").symlink_to(tmp_path / "b" / "0.png")
    (tmp_path / "a" / "ring.png").symlink_to(tmp_path / "a" / "ring.png")
    broken, read = [], []
    for split in SPLITS:
        data = load_dataset(f"folder:{tmp_path}", split)
        store = encode_dataset(tiny_encoder(), data, on_error="skip")
        broken += store.skipped
        read += store.sample_ids
    assert broken == ["a/ring.png"]
    assert len(read) == 7
    assert "a/3.png" in read


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_turned_upright(orientation, kind):
    image = decode_image(turned(orientation, kind), "a", "here")
    assert image.size == (32, 20)
    assert looks_like(image, CORNERS, 0 if kind in ("PNG", "TIFF") else 40)


@pytest.mark.parametrize("orientation", STORED)
def test_sixteen_bits_are_turned_upright_too(orientation):
    grey = np.zeros((20, 32), np.uint16)
    grey[:10, 16:], grey[10:, :16], grey[10:, 16:] = 50 * 257, 100 * 257, 200 * 257
    image = decode_image(turned(orientation, "PNG", Image.fromarray(grey)), "a", "here")
    assert image.size == (32, 20)
    assert corners_of(image) == [(v, v, v) for v in (0, 50, 100, 200)]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "I", "I;16"])
def test_modes_become_rgb(mode):
    grey = Image.new("L", (8, 8), 255)
    if mode == "LAB":
        image = Image.new(mode, (8, 8), (255, 128, 128))
    elif mode.startswith("I"):
        image = Image.fromarray(np.full((8, 8), 65535, np.uint16 if mode == "I;16" else np.int32))
    else:
        image = grey.convert("RGB" if mode == "CMYK" else mode).convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "LAB", "I") else "PNG"
    assert looks_like(decode_image(coded(image, kind), "a", "here"), [WHITE] * 4, 2)


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """The same with a chunk ahead of the pixels, such as which colour is see-through."""
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    at = png.index(b"IDAT") - 4
    return png[:at] + chunk + png[at:]


def png_by_hand(pixels: np.ndarray, kind: int) -> bytes:
    """16 bits a channel, which Pillow writes for grey only."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    made = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def test_one_colour_that_is_see_through():
    grey = coded(quarters((BLACK, GREY, WHITE, BLACK)).convert("L"), "PNG")
    seen = decode_image(with_chunk(grey, b"tRNS", struct.pack(">H", 0)), "a", "here")
    assert looks_like(seen, (WHITE, GREY, WHITE, WHITE))
    rgb = with_chunk(coded(quarters(), "PNG"), b"tRNS", struct.pack(">3H", *RED))
    assert looks_like(decode_image(rgb, "a", "here"), (WHITE, GREEN, BLUE, GREY))
    one = coded(quarters((BLACK, WHITE, WHITE, BLACK)).convert("1"), "PNG")
    seen = decode_image(with_chunk(one, b"tRNS", struct.pack(">H", 0)), "a", "here")
    assert looks_like(seen, [WHITE] * 4)
    deep = np.zeros((8, 8), np.uint16)
    deep[:4, 4:] = 128 * 257
    sixteen = with_chunk(coded(Image.fromarray(deep), "PNG"), b"tRNS", struct.pack(">H", 0))
    assert looks_like(decode_image(sixteen, "a", "here"), (WHITE, GREY, WHITE, WHITE))


def test_sixteen_bits_a_channel():
    deep = np.array(CORNERS, np.uint16).reshape(2, 2, 3).repeat(4, 0).repeat(4, 1) * 257
    assert looks_like(decode_image(png_by_hand(deep, 2), "a", "here"), CORNERS)
    clear = np.concatenate([deep, np.full((8, 8, 1), 65535, np.uint16)], axis=2)
    clear[:4, :4, 3] = 0
    assert looks_like(decode_image(png_by_hand(clear, 6), "a", "here"), (WHITE, GREEN, BLUE, GREY))
    marked = with_chunk(png_by_hand(deep, 2), b"tRNS", struct.pack(">3H", 65535, 0, 0))
    assert looks_like(decode_image(marked, "a", "here"), (WHITE, GREEN, BLUE, GREY))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_picture_is_not_lost_to_what_is_wrong_with_its_exif():
    """Such tags can be read but not written again, which turning doesn't need."""
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x010F] = 6, 72.0, "maker"
    content = coded(STORED[6](quarters(size=(32, 20))), "JPEG", exif=exif, quality=95, subsampling=0)
    rng, kept = random.Random(3), 0
    start = content.index(b"Exif")
    end = start - 2 + int.from_bytes(content[start - 2 : start])
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.randrange(start + 6, end)] = rng.randrange(256)
        image = decode_image(bytes(damaged), "a", "here")
        assert image.mode == "RGB"
        kept += image.size == (32, 20)
    assert kept > 100


def test_a_program_in_postscript_is_not_run():
    content = coded(quarters(), "EPS")
    with pytest.raises(UnreadableImageError, match="a PostScript program, no picture"):
        decode_image(content, "a.png", "here")


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "JPEG2000"]
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_whatever_is_damaged_is_a_picture_or_is_named(kind):
    """No other exception may end a long run."""
    good = coded(Image.effect_noise((SIZE, SIZE), 60).convert("RGB"), kind)
    rng = random.Random(kind)
    for _ in range(150):
        content = bytearray(good)
        for _ in range(rng.choice((1, 2, 6))):
            content[rng.randrange(min(len(content), rng.choice((40, 200, 9999))))] = rng.randrange(256)
        if rng.random() < 0.3:
            content = content[: rng.randrange(len(content))]
        try:
            assert decode_image(bytes(content), "a/7.png", "here").mode == "RGB"
        except UnreadableImageError as error:
            named = str(error)
            assert "'a/7.png'" in named
            assert len(named) < 300


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_cut_file_is_never_half_a_picture(kind, part):
    content = coded(Image.effect_noise((SIZE, SIZE), 60).convert("RGB"), kind)
    with pytest.raises(UnreadableImageError, match="'a'"):
        decode_image(content[: int(len(content) * part)], "a", "here")
