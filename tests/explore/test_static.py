"""The built page: as new as its sources, small, its licences named, and nothing in it from other hosts."""

import hashlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
STATIC = ROOT / "src" / "residual" / "explore" / "static"
# Names of vocabularies, never fetched: what SVG, XHTML, MathML and links inside SVG are called in a document.
NAMESPACES = re.compile(
    r"http://www\.w3\.org/(2000/svg|1999/xhtml|1999/xlink|1998/Math/MathML|XML/1998/namespace|2000/xmlns/)"
)


def digest_of_sources() -> str:
    """As web/build.mjs says: each file that decides about what is built, by its path and its bytes."""
    around = ["build.mjs", "index.html", "package-lock.json", "package.json", "tsconfig.json"]
    inside = [path.relative_to(WEB).as_posix() for path in (WEB / "src").rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for name in sorted([*around, *inside]):
        data = (WEB / name).read_bytes()
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def built(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["index.html", "explore.js", "explore.css"])
def test_the_built_file_is_as_new_as_its_sources(name):
    found = re.search(r"sources sha256 ([0-9a-f]{64})", built(name))
    assert found, f"{name} doesn't say which sources it was built from"
    assert found[1] == digest_of_sources(), "build it again: cd web && npm ci && npm run build"


@pytest.mark.parametrize("name", ["index.html", "explore.js", "explore.css"])
def test_nothing_comes_from_another_host(name):
    text = NAMESPACES.sub("", built(name))
    assert re.findall(r"(?:https?:|wss?:)?//[\w.-]+\.\w+[^\s\"'`]*", text) == []
    assert "@import" not in text


def test_the_page_is_small():
    sizes = {path.name: path.stat().st_size for path in STATIC.iterdir()}
    assert set(sizes) == {"index.html", "explore.js", "explore.css", "LICENSES.txt"}
    assert sizes["explore.js"] < 400_000
    assert sizes["explore.css"] < 60_000


def test_the_licence_of_each_bundled_package_ships():
    lock = json.loads((WEB / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    versions = {place.rpartition("node_modules/")[2]: entry.get("version") for place, entry in lock.items()}
    headings = re.findall(r"^-{80}\n(\S+) (\S+) \(([^)]+)\)\n\n(.)", built("LICENSES.txt"), re.MULTILINE)
    names = {name for name, *_ in headings}
    assert set(json.loads((WEB / "package.json").read_text(encoding="utf-8"))["dependencies"]) <= names
    for name, version, licence, _ in headings:
        assert versions[name] == version
        assert licence in {"MIT", "ISC", "BSD-3-Clause"}, name


def test_the_lock_names_the_public_registry_or_none():
    lock = (WEB / "package-lock.json").read_text(encoding="utf-8")
    hosts = set(re.findall(r'"resolved": "(?:https?://)?([^/"]+)', lock))
    assert hosts <= {"registry.npmjs.org"}
