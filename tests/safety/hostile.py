"""Strategies of hostile files: good ones with values replaced, bytes changed, and headers that lie.

What has a checksum is signed again afterwards, so that what it says is attacked and not the checksum.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import re
import struct
import zlib
from functools import cache
from typing import Any

import pyarrow
import pyarrow.parquet
from hypothesis import strategies as st
from PIL import Image

SECRET = "{secret}"  # stands for the folder that nobody may look into
NAMES = [
    *(
        "",
        ".",
        "..",
        "/",
        "../../secret/canary.png",
        f"{SECRET}/canary.png",
        f"{SECRET}/pipe",
        "/dev/zero",
        "/etc/passwd",
    ),
    *(
        "a\nb",
        "\x1b[31mred\x1b[0m",
        "‮gnp",
        "x" * 3000,
        "$\\frac{1}{$",
        "{}",
        "{0.__class__}",
        "%s%n",
        "\udcff",
        "\0",
    ),
    *("class\x00name", "a\u2028b", "NaN", "None", "__class__", "constructor"),
]
ADDRESSES = [
    *(
        f"folder:{SECRET}",
        f"disk:{SECRET}",
        f"wds:{SECRET}/{{000..001}}.tar",
        f"hf:{SECRET}",
        "hf:someone/evil",
    ),
    *(
        "http://127.0.0.1:9/x",
        "https://example.invalid/x",
        "ftp://127.0.0.1/x",
        "ssh://127.0.0.1/x",
        "s3://b/k",
    ),
    *(
        "reference://::http://127.0.0.1:9/x",
        "simplecache::http://127.0.0.1:9/x",
        f"zip://a::file://{SECRET}/canary.png",
    ),
    *(
        f"file://{SECRET}/canary.png",
        f"local://{SECRET}/canary.png",
        "memory://x",
        "python:os.system",
        "hf://datasets/a/b",
    ),
    *(
        "wds:reference://::http://127.0.0.1:9/x",
        "wds:http://127.0.0.1:9/{000..001}.tar",
        "open_clip:hf-hub:someone/evil",
    ),
    *(
        "timm:hf-hub:someone/evil",
        f"timm:{SECRET}",
        f"open_clip:{SECRET}",
        "waterbirds",
        "imagenet",
    ),
]
NUMBERS = [0, 1, -1, 2, 3, 7, 17, 255, 65536, 10**6, 2**31, 2**32, 2**53, 2**63, 10**12, 10**30, -(2**63)]
NUMBERS += [0.5, -0.5, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")]


def deep(depth: int) -> Any:
    made: Any = []
    for _ in range(depth):
        made = [made]
    return made


TEXTS = st.text("a0._:/=%{[(-'\"\\ \t\n\x1b\x7f\u202e\u2028λ\ud800\U0001f600", max_size=20)
VALUES = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from([None, True, False, [], {}, [[]], [None], [0] * 300, {"a": {"b": [1]}}, ["x"], deep(50)]),
    st.sampled_from(NAMES),
    st.sampled_from(ADDRESSES),
    st.integers(-(10**13), 10**13),
    st.floats(),
    TEXTS,
)
PLACE = st.integers(0, 10**6)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["value", "value", "value", "delete", "add", "swap", "double"]), PLACE, PLACE, VALUES
    ),
    min_size=1,
    max_size=3,
)


def changed_json(value: Any, changes: list[tuple[str, int, int, Any]]) -> Any:
    """JSON with some of its nodes replaced, taken away, exchanged or doubled."""
    root = {"": json.loads(json.dumps(value))}
    for what, place, other, value in changes:
        new = copy.deepcopy(value)  # a later change may be inside of it
        nodes = list(_nodes(root))
        owner, key = nodes[place % len(nodes)]
        if what == "value":
            owner[key] = new
        elif what == "delete" and owner is not root:
            del owner[key]
        elif what == "add" and isinstance(owner[key], dict):
            owner[key][str(new)] = new
        elif what == "swap":
            theirs, name = nodes[other % len(nodes)]
            owner[key] = json.loads(json.dumps(theirs[name]))
        elif what == "double" and isinstance(owner[key], list):
            owner[key] += owner[key]
    return root[""]


def _nodes(owner: Any) -> Any:
    keys = owner if isinstance(owner, dict) else range(len(owner))
    for key in list(keys):
        yield owner, key
        if isinstance(owner[key], dict | list):
            yield from _nodes(owner[key])


# Bytes

BYTES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "flip", "set", "cut", "insert", "delete", "repeat", "zero"]),
        PLACE,
        st.integers(1, 255),
        st.sampled_from([1, 2, 4, 8, 64, 600, 5000]),
    ),
    min_size=1,
    max_size=4,
)


def changed_bytes(data: bytes, changes: list[tuple[str, int, int, int]]) -> bytes:
    made = bytearray(data)
    for what, place, value, count in changes:
        at = place % max(1, len(made))
        if what == "flip" and made:
            made[at] ^= value
        elif what == "set":
            made[at : at + count] = bytes([value]) * min(count, max(0, len(made) - at))
        elif what == "zero":
            made[at : at + count] = bytes(min(count, max(0, len(made) - at)))
        elif what == "cut":
            del made[at:]
        elif what == "insert":
            made[at:at] = bytes([value]) * count
        elif what == "delete":
            del made[at : at + count]
        else:
            made[at:at] = made[at : at + count]
    return bytes(made)


# Tensors


_CHECKSUM = "sha256"


def changed_tensors(data: bytes, changes: Any, which: str) -> bytes:
    """A file of safetensors: its note, header or numbers changed; a checksum in the note is made anew."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
    if which == "header":
        note = header.pop("__metadata__", {})
        header = changed_json(header, changes)
        if isinstance(header, dict) and note:
            header["__metadata__"] = note
    elif which == "note":
        notes = header["__metadata__"]
        for key in [key for key in notes if key.startswith("residual.")]:
            note = json.loads(notes[key])
            checksum = {_CHECKSUM: note.pop(_CHECKSUM)} if _CHECKSUM in note else {}
            changed = changed_json(note, changes)
            notes[key] = json.dumps({**checksum, **changed} if isinstance(changed, dict) else changed)
    elif which == "deep":
        for key in header["__metadata__"]:
            header["__metadata__"][key] = "[" * 100_000
    else:
        numbers = {"nan": float("nan"), "inf": float("inf"), "huge": 3e38, "negative": -7.0, "zero": 0.0}
        for name, about in header.items():
            if name != "__metadata__" and about["dtype"] in ("F32", "F64"):
                code = "<f" if about["dtype"] == "F32" else "<d"
                start, end = about["data_offsets"]
                at = start + (changes[0][1] * struct.calcsize(code)) % max(1, end - start)
                if end - start >= struct.calcsize(code):
                    struct.pack_into(code, body, at - at % struct.calcsize(code), numbers[which])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return _signed(len(text).to_bytes(8, "little") + text + bytes(body))


def _signed(data: bytes) -> bytes:
    """With a checksum that fits, where there is one (`residual.tensor_files`)."""
    found = re.search(rb'\{\\"sha256\\": \\"([0-9a-f]{64})', data)
    if not found:
        return data
    start, end = found.span(1)
    digest = hashlib.sha256(data[:start] + b"0" * 64 + data[end:]).hexdigest()
    return data[:start] + digest.encode() + data[end:]


def changed_parquet(data: bytes, changes: Any) -> bytes:
    """A table of an experiment with another note, and without a checksum, as those of before."""
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    note = json.loads(table.schema.metadata[b"residual.cell"])
    note.pop(_CHECKSUM, None)
    text = json.dumps(changed_json(note, changes))
    sink = pyarrow.BufferOutputStream()
    changed = table.replace_schema_metadata({**table.schema.metadata, b"residual.cell": text})
    pyarrow.parquet.write_table(changed, sink)
    return sink.getvalue().to_pybytes()


TENSOR_PARTS = st.sampled_from(["note", "note", "header", "nan", "inf", "huge", "negative", "zero", "deep"])


# Pictures


def png(
    width: int, height: int, bits: int, colour: int, rows: int, chunks: list[tuple[bytes, bytes]]
) -> bytes:
    """A PNG of one shade; `rows` of it are really there."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    line = 1 + (width * channels * bits + 7) // 8
    packer, packed = zlib.compressobj(1), []
    piece = bytes(min(line * max(1, rows), 1 << 22))
    left = line * rows
    while left > 0:
        packed.append(packer.compress(piece[:left]))
        left -= len(piece)
    packed.append(packer.flush())
    made = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)), *chunks]
    if colour == 3:
        made.append((b"PLTE", bytes(range(48))))
    made += [(b"IDAT", b"".join(packed)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in made
    )


SIDES = st.sampled_from([0, 1, 2, 3, 16, 500, 5000, 9000, 13_000, 30_000, 100_000, 1_000_000, 2**31 - 1])
MOST_PACKED = 3 * 10**8  # bytes that a picture unpacks to


CHUNKS = [
    *((b"tEXt", b"a\0" + b"x" * 1000), (b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8), 1))),
    *((b"iCCP", b"a\0\0" + zlib.compress(bytes(10**7))), (b"tRNS", b"\0\0"), (b"gAMA", bytes(4))),
    *((b"acTL", struct.pack(">II", 2**31 - 1, 0)), (b"eXIf", b"II*\0" + b"\xff" * 50)),
]


@st.composite
def pngs(draw: Any) -> bytes:
    width, height = draw(SIDES), draw(SIDES)
    bits, colour = draw(
        st.sampled_from([(1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 3), (16, 6), (8, 6), (8, 4)])
    )
    line = 1 + width * bits
    rows = (
        min(height, max(0, 10**6 // line)) if draw(st.booleans()) or line * height > MOST_PACKED else height
    )
    extra = draw(st.lists(st.sampled_from(CHUNKS), max_size=2))
    return png(width, height, bits, colour, rows, extra)


@cache
def _saved(kind: str, size: tuple[int, int], mode: str = "RGB", **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize(size).convert(mode).save(buffer, kind, **how)
    return buffer.getvalue()


@st.composite
def jpegs(draw: Any) -> bytes:
    """Progressive ones whose last scan comes again and again, and headers with other sizes."""
    side = draw(st.sampled_from([16, 64, 600, 4000]))
    data = _saved("JPEG", (side, side), progressive=True, quality=20)
    scans = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    last = data[scans[-1] : -2]
    data = (
        data[:-2]
        + last * draw(st.sampled_from([0, 0, 30, min(2000, 300_000 // max(1, len(last)))]))
        + data[-2:]
    )
    if draw(st.booleans()):
        frame = data.index(b"\xff\xc2")
        size = struct.pack(">HH", *(draw(st.sampled_from([1, 16, 8000, 20_000, 65_500])) for _ in range(2)))
        data = data[: frame + 5] + size + data[frame + 9 :]
    return data


@st.composite
def other_pictures(draw: Any) -> bytes:
    kind = draw(
        st.sampled_from(["GIF", "TIFF", "WEBP", "BMP", "ICO", "PPM", "JPEG2000", "ICNS", "EPS", "TGA", "PCX"])
    )
    if kind == "EPS":
        return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file closefile\n%%EOF\n"
    if kind == "ICNS":
        return b"icns" + struct.pack(">I", 2**31 - 1) + b"ic10" + struct.pack(">I", 2**31 - 9) + bytes(40)
    side = draw(st.sampled_from([1, 9, 300]))
    how = (
        {"compression": draw(st.sampled_from(["tiff_lzw", "tiff_deflate", "raw"]))} if kind == "TIFF" else {}
    )
    data = _saved(kind, (side, side), **how)
    huge = draw(st.sampled_from([None, 1, 30_000, 65_535, 2**31 - 1]))
    if huge is None:
        return data
    if kind == "GIF":
        return data[:6] + struct.pack("<HH", min(huge, 65_535), min(huge, 65_535)) + data[10:]
    if kind == "BMP":
        return data[:18] + struct.pack("<ii", huge, draw(st.sampled_from([huge, -huge, 1]))) + data[26:]
    if kind == "PPM":
        return b"P6\n%d %d\n255\n" % (huge, draw(st.sampled_from([1, huge]))) + b"x" * 100
    if kind == "TIFF":
        return data.replace(struct.pack("<HHI", 256, 4, side), struct.pack("<HHI", 256, 4, huge))
    return data


PICTURES = st.one_of(pngs(), pngs(), jpegs(), other_pictures())
DAMAGED_PICTURES = st.one_of(
    PICTURES,
    st.builds(changed_bytes, other_pictures(), BYTES),
    st.builds(
        changed_bytes,
        st.sampled_from(
            [_saved("JPEG", (300, 200)), _saved("PNG", (300, 200), "P"), _saved("WEBP", (300, 200))]
        ),
        BYTES,
    ),
)


# Tar files


def tar_header(name: str, size: int | bytes, kind: bytes = b"0", link: str = "") -> bytes:
    """A header of a member whose size needn't be true."""
    octal = size if isinstance(size, bytes) else b"%011o\0" % size if 0 <= size < 8**11 else _base_256(size)
    fields = [
        name.encode(errors="surrogateescape")[:100].ljust(100, b"\0"),
        *(b"0000644\0", b"0000000\0", b"0000000\0", octal.ljust(12, b"\0")[:12], b"00000000000\0", b" " * 8),
        *(kind, link.encode()[:100].ljust(100, b"\0"), b"ustar\x0000", bytes(247)),
    ]
    header = b"".join(fields)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _base_256(size: int) -> bytes:
    return (b"\xff" if size < 0 else b"\x80") + (size % 256**11).to_bytes(11, "big")


SIZES = st.sampled_from(
    [0, 1, 511, 512, 5000, 10**6, 8 * 10**9, 4 * 10**10, 2**62, -1, -512, -(2**40), b"junk"]
)
KINDS = st.sampled_from(
    [b"0", b"0", b"0", b"\0", b"1", b"2", b"3", b"4", b"5", b"6", b"S", b"L", b"x", b"g", b"V"]
)
MEMBERS = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from(["a.png", "a.cls", "0-0.png", "../x.png", "/x.png", "a.json"]),
            st.sampled_from(NAMES),
        ),
        SIZES,
        KINDS,
        st.sampled_from([b"", b"0", b"1", b"99999999", b"-1", b"[" * 5000, b"\x1b[2J", b"9" * 5000]),
    ),
    min_size=1,
    max_size=4,
)


def tar(members: list[tuple[str, int | bytes, bytes, bytes]]) -> bytes:
    parts = []
    for name, size, kind, data in members:
        parts.append(tar_header(name, size, kind, f"{SECRET}/canary.png"))
        parts.append(data + bytes(-len(data) % 512))
    return b"".join(parts)


# Settings

_LINES = st.one_of(
    st.sampled_from(
        [
            "from __gin__ import dynamic_registration",
            *("import os", "import subprocess", "from os import system", "import antigravity", "import evil"),
            *("include 'settings.gin'", f"include '{SECRET}/canary.gin'", "include '/dev/zero'"),
            *(
                "run.dataset = @os.system()",
                "run.seed = @subprocess.getoutput()",
                "os.system.command = 'touch ran'",
            ),
            *(
                "system.command = 'touch ran'",
                "getoutput.cmd = 'touch ran'",
                "FitSettings.epochs = @system()",
            ),
            *(
                "run.seed = %macro",
                "macro = 3",
                "macro = @run()",
                "FitSettings.epochs = @FitSettings",
                "a/b/run.seed = 1",
            ),
            *(
                "run.seed = 1e400",
                "run.seed = " + "[" * 300,
                "run.seed = " + "9" * 5000,
                "run.dataset = 'x",
                "run:",
            ),
            *(
                "    seed = 3",
                "run.seed = 2 ** 9 ** 9",
                "run.seed = (lambda: 1)()",
                "run.seed = __import__('os')",
            ),
            *(
                "run.seed = {**{}}",
                "run.seed = -1",
                "run.batch_size = 'x'",
                "run.seeds = 10**9",
                "run.seeds = 100000000",
            ),
            *(
                "gin.singleton.constructor = @system",
                "x = @gin.singleton()",
                "run.encoder = @exec()",
                "\0",
                "‮",
            ),
            *('exec.source = \'open("ran", "w")\'', "import builtins", "builtins.exec.source = 'import os'"),
        ]
    ),
    st.builds(
        "{} = {}".format,
        st.sampled_from(
            [
                "run.dataset",
                "run.seed",
                "run.encoder",
                "FitSettings.epochs",
                "AdapterSettings.init",
                "encode.kinds",
                "nothing.x",
            ]
        ),
        st.one_of(VALUES.map(repr), TEXTS),
    ),
)
_DYNAMIC = "from __gin__ import dynamic_registration\nfrom residual.adapters import fit_settings\n"
_CALLS = [
    _DYNAMIC + "import os\nos.system.command = 'touch ran'\n{} = @os.system()\n",
    _DYNAMIC + "import subprocess\nsubprocess.getoutput.cmd = 'touch ran'\n{} = @subprocess.getoutput()\n",
    _DYNAMIC + "from os import system as run\nrun.command = 'touch ran'\n{} = @run()\n",
    _DYNAMIC + 'import builtins\nbuiltins.exec.source = \'open("ran", "w")\'\n{} = @builtins.exec()\n',
    _DYNAMIC + "import pathlib\npathlib.Path.write_text.data = 'x'\n{} = @pathlib.Path()\n",
    _DYNAMIC + "import evil\n{} = 1\n",
    "import evil\n{} = 1\n",
    f"include '{SECRET}/canary.gin'\n" + "{} = 1\n",
    "include '/dev/zero'\n{} = 1\n",
    "include 'settings.gin'\n{} = 1\n",
    "{} = @gin.singleton()\ngin.singleton.constructor = @run\n",
]
_TARGETS = [
    "fit_settings.FitSettings.epochs",
    "fit_settings.FitSettings.learning_rate",
    "run.dataset",
    "run.seed",
    "FitSettings.epochs",
    "AdapterSettings.init",
    "encode.dataset",
    "train.dataset",
]
_LINE_LISTS = st.lists(_LINES, min_size=1, max_size=5).map("\n".join)
SETTINGS = st.one_of(
    _LINE_LISTS,
    st.builds(lambda call, to: call.replace("{}", to), st.sampled_from(_CALLS), st.sampled_from(_TARGETS)),
    st.builds(
        lambda call, to, more: call.replace("{}", to) + more,
        st.sampled_from(_CALLS),
        st.sampled_from(_TARGETS),
        _LINE_LISTS,
    ),
)
PARAMS = st.lists(
    st.one_of(
        _LINES,
        st.builds("run.{}={}".format, st.sampled_from(["dataset", "seed", "bases"]), VALUES),
        TEXTS,
    ),
    max_size=2,
)
