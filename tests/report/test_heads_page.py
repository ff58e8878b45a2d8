"""The page of heads: self-contained, well-formed, its pictures the right ones; seen by a real browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from pictures import write_folder
from PIL import Image

from residual import encode_dataset, load_dataset, load_encoder
from residual.heads import DescribeSettings
from residual.maps import component_maps, overlay
from residual.report import heads_table, write_heads_page
from residual.report.end_maps import end_maps
from residual.report.tables import percent
from residual.workflows.describe import describe_store

TEXTS = ("black on white", "a <script>bad()</script> & more", "the digit 1", "a round shape", "a thin line")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures, a store of them and texts."""
    root = tmp_path_factory.mktemp("heads")
    name = f"folder:{write_folder(root / 'a <b> & c', each=8)}"
    encode_dataset(load_encoder("picto", device="cpu"), load_dataset(name, "train"), root / "store")
    (root / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def description(folder):
    settings = DescribeSettings(top=3, atoms=4, components=2, images=4, texts=2)
    texts = str(folder / "texts.json")
    return describe_store(str(folder / "store"), texts, None, settings, device="cpu")


@pytest.fixture(scope="module")
def found(description):
    return description.heads


@pytest.fixture(scope="module")
def dataset(folder):
    return load_dataset(f"folder:{folder / 'a <b> & c'}", "train")


@pytest.fixture(scope="module")
def page(found, dataset, tmp_path_factory):
    return write_heads_page(tmp_path_factory.mktemp("out") / "deep/heads.html", found, dataset)


class Reader(HTMLParser):
    """Collects what a page is made of, and checks that tags are closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str):
        super().__init__()
        self.open, self.links, self.pictures, self.ids, self.tags = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.links += [value for name, value in attrs.items() if name in ("src", "href", "srcset", "data")]
        self.ids += [value for name, value in attrs.items() if name == "id"]
        if tag == "img":
            self.pictures.append((attrs["alt"], attrs["src"]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def shows(uri: str, picture: Image.Image) -> bool:
    """Whether a page's picture is this one: what JPEG changes of 64 pixels a side is little."""
    shown = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    return bool(np.abs(np.asarray(shown, float) - np.asarray(picture.convert("RGB"), float)).mean() < 4)


def test_it_is_well_formed_and_needs_nothing_from_outside(page):
    text = page.read_text(encoding="utf-8")
    reader = Reader(text)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    for link in reader.links:
        assert link.startswith("data:") or (link.startswith("#") and link[1:] in reader.ids), link[:80]
    assert not re.search(r"https?://|@import|url\(", text)
    assert "script" not in reader.tags
    assert "&lt;script&gt;bad()&lt;/script&gt; &amp; more" in text
    assert "a &lt;b&gt; &amp; c" in text


def test_every_head_has_a_section_and_is_in_the_contents(found, page):
    text = page.read_text(encoding="utf-8")
    reader = Reader(text)
    for head in found.heads:
        anchor = f"head-{head.layer}-{head.head}"
        assert reader.ids.count(anchor) == 1
        assert f'<a href="#{anchor}">{head.name}</a>' in text
        section = text[text.index(f'id="{anchor}"') :]
        section = section[: section.index("</section>")]
        assert f"Accuracy alone {percent(head.score)}, rank {head.rank} of 48" in section
        assert section.count("<rect ") == len(head.eigenvalues)
        assert section.count('class="shown"') == 2
        for ratio in head.explained_variance_ratio[:3]:
            assert percent(ratio) in section
        for chosen in head.texts:
            assert percent(chosen.explained_variance) in section
        assert head.verdict in section
        assert ("The texts that were chosen all the same" in section) != head.named
        assert section.count('class="component"') == 2


def test_every_picture_is_the_sample_that_its_alt_says(found, page, folder):
    wanted = [
        end.sample_id
        for head in found.heads
        for component in head.components
        for end in (*component.largest, *component.smallest)
    ]
    pictures = Reader(page.read_text(encoding="utf-8")).pictures
    assert [alt.partition(": ")[2] for alt, _ in pictures] == wanted
    assert len(wanted) == 3 * 2 * 2 * 4
    for alt, uri in pictures:
        assert shows(uri, Image.open(folder / "a <b> & c" / alt.partition(": ")[2]))


def test_maps_are_of_the_components_over_their_pictures_with_one_scale(description, folder, tmp_path):
    shutil.copytree(folder / "a <b> & c", tmp_path / "pictures")
    head = description.heads.heads[0]
    ends = [*head.components[1].largest, *head.components[1].smallest]
    gone, *left = [end.sample_id for end in ends]
    (tmp_path / "pictures" / gone).write_bytes(b"")
    dataset = load_dataset(f"folder:{tmp_path / 'pictures'}", "train")
    encoder, bases = description.encoder, description.bases
    made = end_maps(encoder, bases, dataset, {f"{head.name}:1": [gone, *left]})
    assert sorted(sample for _, sample in made.found) == sorted(left)
    pictures = [Image.open(tmp_path / "pictures" / sample) for sample in left]
    maps = component_maps(encoder, encoder.pixels(pictures), bases, f"{head.name}:1")
    for picture, sample, (values,) in zip(pictures, left, maps.values, strict=True):
        each = made.found[f"{head.name}:1", sample]
        assert shows(each.uri, overlay(picture, values, maps.scale))
        assert each.words.startswith("raised" if values.flatten()[values.abs().argmax()] > 0 else "lowered")
    page = write_heads_page(
        tmp_path / "heads.html", description.heads, dataset, encoder=encoder, bases=bases
    ).read_text(encoding="utf-8")
    plain = write_heads_page(tmp_path / "plain.html", description.heads, dataset).read_text(encoding="utf-8")
    pictures = Reader(page).pictures
    assert sum("its score on this picture of" in alt for alt, _ in pictures) == len(pictures) / 2
    assert len(page) < 1.6 * len(plain)
    assert 'class="map"' not in plain
    assert end_maps(encoder, bases, dataset, {"99.0:0": left}).note.startswith("There are no maps: ")


def test_progress_is_told_of_every_picture_once(found, dataset, tmp_path):
    told = []
    write_heads_page(tmp_path / "heads.html", found, dataset, lambda stage, *done: told.append(done))
    distinct = {end.sample_id for head in found.heads for each in head.components for end in each.largest}
    distinct |= {end.sample_id for head in found.heads for each in head.components for end in each.smallest}
    assert told == [(done, len(distinct)) for done in range(1, len(distinct) + 1)]


def test_without_pictures_samples_are_named(found, tmp_path):
    note = "The dataset can't be loaded <any> more."
    path = write_heads_page(tmp_path / "heads.html", replace(found, notes=(note,)))
    text = path.read_text(encoding="utf-8")
    reader = Reader(text)
    assert (reader.open, reader.pictures) == ([], [])
    assert "can&#39;t be loaded &lt;any&gt; more." in text
    for end in found.heads[0].components[0].largest:
        assert f'<span class="missing">{end.sample_id}</span>' in text


def test_a_picture_that_became_unreadable_is_left_out_and_told(found, folder, tmp_path):
    shutil.copytree(folder / "a <b> & c", tmp_path / "pictures")
    gone = found.heads[0].components[0].largest[0].sample_id
    (tmp_path / "pictures" / gone).write_bytes(b"")
    left = load_dataset(f"folder:{tmp_path / 'pictures'}", "train")
    text = write_heads_page(tmp_path / "heads.html", found, left).read_text(encoding="utf-8")
    assert f"Pictures that can&#39;t be read any more are left out: {gone}." in text
    assert gone not in [alt.partition(": ")[2] for alt, _ in Reader(text).pictures]


def test_heads_with_nothing_to_tell(found, tmp_path):
    empty = replace(
        found.heads[0], texts=(), components=(), eigenvalues=(), linear_dimension=0, score=None, rank=None,
        participation_ratio=None,
    )  # fmt: skip
    path = write_heads_page(tmp_path / "heads.html", replace(found, heads=[empty, *found.heads[1:]]))
    text = path.read_text(encoding="utf-8")
    assert Reader(text).open == []
    assert text.count("None: the head writes the same for every sample.") == 2
    assert "nan" not in re.sub(r'"data:[^"]*"', "", text)


def test_a_row_a_head_in_the_terminal(found):
    shown = "\n".join(heads_table(found).lines(80))
    for head in found.heads:
        (line,) = [line for line in shown.splitlines() if line.split()[:1] == [head.name]]
        for cell in (
            percent(head.score),
            f"{head.rank}/48",
            f"{head.linear_dimension}",
            head.texts[0].text[:12] if head.named else "no name",
        ):
            assert cell in line
        assert not head.named or head.texts[2].text[:12] in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1200, False)])
def test_a_browser_shows_it(page, tmp_path, width, dark):
    text = page.read_text(encoding="utf-8")
    seen = seen_by_a_browser(text, tmp_path, width, dark)
    assert seen["pictures"] == len(Reader(text).pictures) > 0
    assert seen["bars"] == Reader(text).tags.count("rect") > 0


def seen_by_a_browser(text: str, folder: Path, width: int, dark: bool) -> dict:
    """How many pictures and bars are drawn; nothing is wider than the window, every text is readable on its
    ground, and the console stays empty.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser on the PATH ({', '.join(BROWSERS)}), so the page can't be seen by one")
    seen = """<script>addEventListener("load", () => {
        const style = getComputedStyle(document.body), bars = [...document.querySelectorAll("svg rect")];
        const texts = [...document.querySelectorAll("p, a, h2, h3, td, th, figcaption, summary")];
        const ground = each => getComputedStyle(each).backgroundColor;
        const inks = new Set(texts.map(each => {
            let on = each;
            while (on !== document.body && ground(on) === "rgba(0, 0, 0, 0)") on = on.parentElement;
            return getComputedStyle(each).color + " on " + ground(on)}));
        document.documentElement.dataset.seen = JSON.stringify({
            pictures: [...document.images].filter(image => image.naturalWidth && image.offsetWidth).length,
            bars: bars.filter(bar => bar.getBoundingClientRect().height > 0).length,
            wide: document.documentElement.scrollWidth, inner: innerWidth,
            ground: style.backgroundColor, inks: [...inks]})})</script>"""
    copy = folder / "page.html"
    shown = text.replace("</body>", f"{seen}</body>").replace(' loading="lazy"', "")
    copy.write_text(shown, encoding="utf-8")
    words = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr", f"--window-size={width},900", "--dump-dom", copy.as_uri(),
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr
    told = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert told, done.stdout[:500]
    told = json.loads(told[1].replace("&quot;", '"'))
    assert told["wide"] <= told["inner"]
    assert (brightness(told["ground"]) < 0.1) == dark
    assert [pair for pair in told["inks"] if contrast(*pair.split(" on ")) < 4.5] == []
    return told


def brightness(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


def contrast(one: str, two: str) -> float:
    low, high = sorted((brightness(one), brightness(two)))
    return (high + 0.05) / (low + 0.05)
