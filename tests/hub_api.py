"""A hub that answers what is in its repositories, and nothing else: real requests of the real client."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from huggingface_hub import constants


class Repositories:
    """Those of the hub: by kind and name their files with sizes; and what was asked for."""

    def __init__(self):
        self.files: dict[str, dict[str, int]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []

    def add(self, path: str, gated: bool = False, **files: int) -> None:
        """`path` is "models/OWNER/NAME"; underscores of file names before their endings are dots."""
        self.files[path] = files
        if gated:
            self.gated.add(path)


@contextmanager
def served(monkeypatch: Any) -> Generator[Repositories]:
    """Let the client ask such a hub for as long as the context lasts."""
    known = Repositories()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0].removeprefix("/api/")
            known.asked.append(path)
            name = "/".join(path.split("/")[:3])
            rest = path.removeprefix(name).strip("/")
            if name not in known.files:
                self.answer(404, "RepoNotFound")
            elif rest == "auth-check":
                self.answer(403 if name in known.gated else 200, "GatedRepo")
            elif rest and rest != "revision/main":
                self.answer(404, "RevisionNotFound")
            else:
                siblings = [{"rfilename": file, "size": size} for file, size in known.files[name].items()]
                gated = "manual" if name in known.gated else False
                about = {"id": name.partition("/")[2], "sha": "0" * 40, "siblings": siblings, "gated": gated}
                self.answer(200, "", about | {"private": False, "downloads": 0, "tags": [], "likes": 0})

        def answer(self, status: int, error: str, body: object = None) -> None:
            content = json.dumps(body or {}).encode()
            self.send_response(status)
            if status >= 400:
                self.send_header("X-Error-Code", error)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    try:
        yield known
    finally:
        server.shutdown()
        server.server_close()
