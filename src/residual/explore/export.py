"""The page as one file, without a server: its files inlined, and the answers that it holds."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from residual.errors import ResidualError
from residual.explore.built import INDEX, built
from residual.files import write_text
from residual.outputs import check_file
from residual.products import EXPLORED_PAGE, MADE_BY
from residual.progress import Progress
from residual.workflows.exploration import Exploration
from residual.workflows.exploration.recording import Recording

MOST = 20 * 10**6  # bytes of a page
_LEAST = 10**6
_SCRIPT = re.compile(r'<script[^>]*\bsrc="(?:\./)?(?P<name>[\w.-]+)"[^>]*></script>')
_STYLE = re.compile(r'<link[^>]*\brel="stylesheet"[^>]*\bhref="(?:\./)?(?P<name>[\w.-]+)"[^>]*>')


@dataclass(frozen=True)
class Exported:
    """A page that was written: its size in bytes, and what of the exploration isn't in it, in sentences."""

    size: int
    cut: tuple[str, ...]


def export_page(
    exploration: Exploration,
    path: str | Path,
    *,
    most: int = MOST,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write the explorer as one file that needs no server and asks no other machine for anything.

    Args:
        exploration: that is recorded, as far as there is room.
        path: of the file.
        most: bytes that it may have.
        overwrite: whether an earlier one may be replaced.
        progress: told of what is recorded.

    Raises:
        ExistingError, ForeignError: one is there already, see `overwrite`; or something else is.
        ResidualError: fewer than a million bytes; or as what is recorded.
    """
    place = check_file(path, EXPLORED_PAGE, overwrite)
    if most < _LEAST:
        raise ResidualError(f"A page has a million bytes or more to itself, got {most:,}.")
    frame = page_of("")
    recording = Recording(exploration, most - len(frame.encode()), progress)
    page = page_of(recording.to_json())
    write_text(place, page)
    return Exported(len(page.encode()), tuple(recording.cut))


def page_of(recorded: str) -> str:
    """The page's files in one, with these answers.

    Raises:
        ResidualError: the page isn't built.
    """
    files = {name: data.decode() for name, (data, _) in built().items() if not name.endswith(".png")}
    if INDEX not in files:
        raise ResidualError("The page's built files aren't in this installation: install residual-vit anew.")
    page, scripts = files[INDEX], list[str]()

    def script(found: re.Match[str]) -> str:
        code = files[found["name"]].replace("</script", r"<\/script").replace("<!--", r"\x3c!--")
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        scripts.append(f"'sha256-{digest}'")
        return f'<script type="module">{code}</script>'

    def style(found: re.Match[str]) -> str:
        return f"<style>{files[found['name']]}</style>"

    page = _SCRIPT.sub(script, _STYLE.sub(style, page))
    data = recorded.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    held = f'<script type="application/json" id="recorded">{data}</script>\n</body>'
    page = held.join(page.rsplit("</body>", 1))
    policy = (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src {' '.join(scripts)}"
    )
    head = (
        f'<meta charset="utf-8">\n<meta name="generator" content="{MADE_BY}">\n'
        f'<meta name="description" content="{EXPLORED_PAGE}">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    )
    return page.replace('<meta charset="utf-8">', head, 1)
