"""A hub on this machine: the endpoints by which `huggingface_hub` makes, fills and reads a repository."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_this_test"


@dataclass
class Hub:
    """What is on it: of each repository its commits, each with all files; and who asked for what."""

    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    latest: dict[str, str] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        sha = self.latest.get(repo) if revision == "main" else revision
        return None if sha not in self.commits.get(repo, {}) else (sha, self.commits[repo][sha])

    def commit(self, repo: str, lines: list[dict[str, Any]]) -> str:
        before = self.commits[repo].get(self.latest.get(repo, ""), {})
        new = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        files = before | new
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[repo][sha], self.latest[repo] = files, sha
        return sha


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, code: int, content: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def told(self, value: Any, code: int = 200) -> None:
        self.answer(code, json.dumps(value).encode(), Content_Type="application/json")

    def missing(self, what: str) -> None:
        self.answer(404, b"{}", X_Error_Code=what, X_Error_Message=f"{what} here")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.told({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            url = {"url": f"{self.hub.url}/{repo}"}
            if repo in self.hub.commits:
                return self.told({"error": "You already created this model repo"} | url, 409)
            self.hub.commits[repo] = {}
            self.hub.private[repo] = asked.get("visibility") == "private"
            return self.told(url)
        if path == "/api/validate-yaml":
            header = json.loads(body)["content"]
            good = header.startswith("---\n") and "\n---\n" in header
            return self.told({"errors": [] if good else [{"message": "no header"}]}, 200 if good else 400)
        if found := re.fullmatch(r"/api/models/(.+/.+)/preupload/main", path):
            regular = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return self.told({"files": [{"path": f["path"]} | regular for f in json.loads(body)["files"]]})
        if found := re.fullmatch(r"/api/models/(.+/.+)/commit/main", path):
            sha = self.hub.commit(found[1], [json.loads(line) for line in body.splitlines()])
            url = f"{self.hub.url}/{found[1]}/commit/{sha}"
            return self.told({"success": True, "commitOid": sha, "commitUrl": url})
        return self.missing("EntryNotFound")

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
            repo, what, revision = found[1], found[2], found[3] or "main"
            if repo not in self.hub.commits:
                return self.missing("RepoNotFound")
            if (held := self.hub.files(repo, revision)) is None:
                return self.missing("RevisionNotFound")
            sha, files = held
            if what == "tree":
                return self.told(
                    [
                        {
                            "type": "file",
                            "path": name,
                            "size": len(data),
                            "oid": hashlib.sha1(data).hexdigest(),
                        }
                        for name, data in files.items()
                    ]
                )
            names = [{"rfilename": name} for name in files]
            return self.told({"_id": "1", "id": repo, "modelId": repo, "sha": sha, "siblings": names})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            held = self.hub.files(found[1], found[2])
            if held is None or found[3] not in held[1]:
                return self.missing("EntryNotFound")
            data = held[1][found[3]]
            etag = f'"{hashlib.sha1(data).hexdigest()}"'
            return self.answer(200, data, ETag=etag, X_Repo_Commit=held[0])
        return self.missing("EntryNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()


@contextmanager
def running_hub() -> Generator[Hub]:
    """One that is empty, until the context is left."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfThisHub", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
