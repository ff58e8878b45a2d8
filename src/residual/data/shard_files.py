"""Which shards an address means: ranges, lists, stars, `{split}` and folders become tar files."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import replace

from residual.data.dataset import SPLITS
from residual.data.shard_reader import Shard, file_system, for_each, is_local, local_version, reaching
from residual.errors import ResidualError

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
FORMS = (
    "Name shards as in 'shards/{000..012}.tar' or 'shards/{split}-*.tar', or a folder with train/0.tar and "
    "test/0.tar in it."
)
MOST = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
# What file systems call the mark of a file's version.
_VERSIONS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "Content-MD5", "md5Hash")
_VERSIONS += ("generation", "blob_id", "sha", "mtime", "created")


def find_shards(address: str) -> dict[str, tuple[Shard, ...]]:
    """The shards of every split that is there, or those of `""` where the address tells no splits apart.

    Raises:
        ResidualError: there are none, some are missing, or train or test is.
    """
    if is_folder(address):
        found = {split: _in_folder(address, split) for split in SPLITS}
    elif "{split}" in address:
        found = {split: _named(address.replace("{split}", split)) for split in SPLITS}
    else:
        found = {"": _named(address)}
        if not found[""]:
            raise ResidualError(f"There are no shards at {address!r}. {FORMS}")
    found = {split: shards for split, shards in found.items() if shards}
    if absent := [repr(split) for split in ("train", "test") if split not in found and "" not in found]:
        raise ResidualError(f"There are no shards of {' and '.join(absent)} at {address!r}. {FORMS}")
    folders = [shard.path.split("/")[:-1] for shards in found.values() for shard in shards]
    levels = zip(*folders, strict=False)
    depth = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
    return {
        split: tuple(replace(shard, name=_below(shard.path, depth)) for shard in shards)
        for split, shards in found.items()
    }


def is_folder(address: str) -> bool:
    """Whether an address is a folder's, with a folder of shards for every split in it."""
    if "*" in address or "{" in address:
        return False
    name = address.rstrip("/").rsplit("/", 1)[-1]
    return not (".tar" in name or name.endswith(COMPRESSED)) or os.path.isdir(os.path.expanduser(address))


def read_beside(address: str, shard: Shard, name: str) -> str | None:
    """The text file `name` in the root that the address names or beside a shard; None where there is none.

    Raises:
        ResidualError: it can't be read.
    """
    places = [(shard.address, shard.path.rsplit("/", 1)[0])]
    if is_folder(address) or "{split}" in address:
        before = f"{address}/" if is_folder(address) else address.split("{split}")[0]
        root = before.rpartition("/")[0] or ("/" if before.startswith("/") else ".")
        if "*" not in root and "{" not in root:
            places.insert(0, (root, file_system(root)[1].rstrip("/")))
    texts = (_text(base, f"{folder}/{name}") for base, folder in places)
    return next((text for text in texts if text is not None), None)


def _in_folder(root: str, split: str) -> list[Shard]:
    """Those in `ROOT/SPLIT`: numbered, as many as `nshards.txt` says, or else listed."""
    folder = f"{root.rstrip('/')}/{split}"
    text = _text(folder, f"{file_system(folder)[1]}/nshards.txt")
    if text is None:
        return _named(f"{folder}/*.tar")
    if not re.fullmatch(r"[0-9]{1,6}", text.strip()):
        raise ResidualError(f"'{folder}/nshards.txt' must say how many shards there are, got {text[:40]!r}.")
    if int(text) == 0:
        return []
    shards = _named(f"{folder}/{{0..{int(text) - 1}}}.tar")
    if not shards:
        raise ResidualError(f"'{folder}/nshards.txt' says {int(text)}, but there is no '{folder}/0.tar'.")
    return shards


def _named(address: str) -> list[Shard]:
    """All shards that an address without `{split}` names; none where none of them is there."""
    places: dict[str, str] = {}
    for one in _expanded(address):
        places |= dict.fromkeys(_listed(one) if "*" in one else [file_system(one)[1]], one)
    asked = [Shard(one, path, "", -1, "", is_local(one)) for path, one in places.items()]
    found = for_each(_looked_up, asked)
    absent = [shard.path for shard, there in zip(asked, found, strict=True) if there is None]
    if 0 < len(absent) < len(asked):
        others = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise ResidualError(
            f"Of the {len(asked)} shards {address!r} this isn't there: {absent[0]!r}{others}."
        )
    return [shard for shard in found if shard is not None]


def _listed(pattern: str) -> list[str]:
    system, path = file_system(pattern)
    with reaching(pattern):
        try:
            found = [str(name) for name in system.glob(path)]
        except FileNotFoundError:
            found = []
    return sorted((name for name in found if name.endswith((".tar", *COMPRESSED))), key=_natural)


def _natural(path: str) -> list[str | int]:
    """Sorts 2.tar before 10.tar, as `nshards.txt` numbers them."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", path))]


def _looked_up(shard: Shard) -> Shard | None:
    """The same with its size and version; None where there is no such file."""
    with reaching(shard.path):
        try:
            if shard.local:
                status = os.stat(shard.path)
                size, folder = status.st_size, os.path.isdir(shard.path)
                version = local_version(status)
            else:
                system, _ = file_system(shard.address)
                info = system.info(shard.path)
                size, folder = info["size"], info.get("type") == "directory"
                marks = [f"{mark} {info[mark]}" for mark in _VERSIONS if info.get(mark)]
                version = ", ".join(marks) or str(system.ukey(shard.path))
        except (FileNotFoundError, NotADirectoryError):
            return None
    if folder:
        raise ResidualError(f"{shard.path!r} is a folder, not a tar file. {FORMS}")
    if size is None:
        raise ResidualError(f"Whoever serves {shard.path!r} doesn't say its size. Copy it to a disk first.")
    return replace(shard, size=size, version=version)


def _expanded(address: str) -> list[str]:
    """Ranges `{000..012}` and lists `{a,b}` written out."""
    done: list[str] = []
    waiting = [address]
    while waiting:
        one = waiting.pop()
        braces = _BRACES.search(one)
        if braces:
            choices = _choices(braces[1], address)
            waiting += [one[: braces.start()] + choice + one[braces.end() :] for choice in reversed(choices)]
        else:
            done.append(one)
        if len(done) + len(waiting) > MOST:
            raise ResidualError(f"{address!r} names more than {MOST:,} shards.")
    return list(dict.fromkeys(done))


def _choices(text: str, address: str) -> Sequence[str]:
    if "," in text:
        return text.split(",")
    ends = re.fullmatch(r"([0-9]{1,12})\.\.([0-9]{1,12})", text)
    if not ends:
        raise ResidualError(
            f"'{{{text}}}' in {address!r} is no range {{000..012}}, no list {{a,b}} and not {{split}}."
        )
    first, last = int(ends[1]), int(ends[2])
    if abs(last - first) >= MOST:
        raise ResidualError(f"{address!r} names more than {MOST:,} shards.")
    padded = any(len(end) > 1 and end.startswith("0") for end in ends.groups())
    width = max(map(len, ends.groups())) if padded else 0
    step = 1 if first <= last else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def _below(path: str, depth: int) -> str:
    name = "/".join(path.split("/")[depth:])
    return name.partition("?")[0] if "://" in path else name


def _text(address: str, path: str) -> str | None:
    with reaching(path):
        try:
            return file_system(address)[0].cat_file(path).decode("utf-8-sig")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except PermissionError:
            if is_local(address):
                raise
            return None  # what a bucket says of a file that isn't there if it can't be listed
        except UnicodeDecodeError as error:
            raise ResidualError(f"{path!r} isn't text in UTF-8.") from error
