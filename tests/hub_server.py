"""A hub on this machine: the endpoints that `huggingface_hub` and `datasets` make, fill and read with.

A repository is called as in the hub's addresses: OWNER/NAME a model, datasets/OWNER/NAME a dataset.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_of_this_test"
_REPO = r"((?:datasets/)?[^/]+/[^/]+)"
_GATED = "Access to {} is restricted. You must have access to it and be authenticated to access it."


@dataclass
class Hub:
    """What is on it: of each repository its commits, each with all files; and who asked for what.

    `references` are those beside main, such as "refs/pr/2", and `authors` who opened them; `gated` is whose
    files need `TOKEN`; `sent` counts the bytes of each file, as "OWNER/NAME/FILE", that were sent; `busy`
    is how many requests of files are answered with 503 first.
    """

    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    latest: dict[str, str] = field(default_factory=dict)
    references: dict[str, dict[str, str]] = field(default_factory=dict)
    authors: dict[str, dict[str, str]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    url: str = ""
    busy: int = 0

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        known = {"main": self.latest.get(repo, ""), **self.references.get(repo, {})}
        sha = known.get(revision, revision)
        return None if sha not in self.commits.get(repo, {}) else (sha, self.commits[repo][sha])

    def put(self, repo: str, files: Mapping[str, bytes] | Path, reference: str = "main") -> None:
        """Make these files, or those of a folder, all that a revision has."""
        if isinstance(files, Path):
            each = (path for path in sorted(files.rglob("*")) if path.is_file())
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in each}
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits.setdefault(repo, {})[sha] = dict(files)
        if reference == "main":
            self.latest[repo] = sha
        else:
            self.references.setdefault(repo, {})[reference] = sha

    def commit(self, repo: str, lines: list[dict[str, Any]]) -> str:
        before = self.commits[repo].get(self.latest.get(repo, ""), {})
        new = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        self.put(repo, before | new)
        return self.latest[repo]


def _file(name: str, data: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(data).hexdigest()
    return {"type": "file", "path": name, "size": len(data), "oid": oid}


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

    @property
    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"POST {path}")
        if found := re.fullmatch(rf"/api/(?:models/)?{_REPO}/paths-info/(.+)", path):
            if (held := self.hub.files(found[1], found[2])) is None:
                return self.missing("RevisionNotFound")
            fields = json.loads(body) if body.startswith(b"{") else parse_qs(body.decode())
            return self.told([_file(name, held[1][name]) for name in fields["paths"] if name in held[1]])
        if not self.known:
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
        if found := re.fullmatch(rf"/api/models/{_REPO}/preupload/main", path):
            regular = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return self.told({"files": [{"path": f["path"]} | regular for f in json.loads(body)["files"]]})
        if found := re.fullmatch(rf"/api/models/{_REPO}/commit/main", path):
            sha = self.hub.commit(found[1], [json.loads(line) for line in body.splitlines()])
            url = f"{self.hub.url}/{found[1]}/commit/{sha}"
            return self.told({"success": True, "commitOid": sha, "commitUrl": url})
        return self.missing("EntryNotFound")

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(rf"/api/(?:models/)?{_REPO}/refs", path):
            return self.references(found[1])
        if found := re.fullmatch(rf"/api/models/{_REPO}/discussions", path):
            return self.discussions(found[1])
        if found := re.fullmatch(rf"/api/(?:models/)?{_REPO}/auth-check", path):
            lets = found[1] not in self.hub.gated or self.known
            return self.told({}) if lets else self.answer(403, b"{}", X_Error_Code="GatedRepo")
        if found := re.fullmatch(rf"/api/(?:models/)?{_REPO}(?:/(revision|tree)/(.+))?", path):
            return self.repository(found[1], found[2], found[3] or "main")
        if found := re.fullmatch(rf"/{_REPO}/resolve/(refs/[^/]+/[^/]+|[^/]+)/(.+)", path):
            return self.file(found[1], found[2], found[3])
        return self.missing("EntryNotFound")

    def references(self, repo: str) -> None:
        if repo not in self.hub.commits:
            return self.missing("RepoNotFound")
        refs = {"main": self.hub.latest.get(repo, "")} | self.hub.references.get(repo, {})
        listed = [{"name": name, "ref": name, "targetCommit": sha} for name, sha in refs.items()]
        pulls = [each for each in listed if each["name"].startswith("refs/pr/")]
        branches = [each for each in listed if each not in pulls]
        return self.told({"branches": branches, "converts": [], "tags": [], "pullRequests": pulls})

    def discussions(self, repo: str) -> None:
        about = {"title": "Adding `safetensors` variant", "status": "open", "isPullRequest": True}
        about |= {"repo": {"name": repo, "type": "model"}, "createdAt": "2023-03-01T00:00:00.000Z"}
        listed = [
            about | {"num": int(reference.rpartition("/")[2]), "author": {"name": author}}
            for reference, author in self.hub.authors.get(repo, {}).items()
        ]
        return self.told({"discussions": listed, "count": len(listed), "start": 0})

    def repository(self, repo: str, what: str | None, revision: str) -> None:
        if repo not in self.hub.commits:
            return self.missing("RepoNotFound")
        folder = ""
        if what == "tree":
            named = re.fullmatch(r"(refs/[^/]+/[^/]+|[^/]+)(?:/(.+))?", revision)
            assert named
            revision, folder = named[1], named[2] or ""
        if (held := self.hub.files(repo, revision)) is None:
            return self.missing("RevisionNotFound")
        sha, files = held
        if what != "tree":
            names = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            name = repo.removeprefix("datasets/")
            gated = "auto" if repo in self.hub.gated else False
            about = {"_id": "1", "id": name, "modelId": name, "sha": sha, "gated": gated}
            return self.told({**about, "siblings": names})
        inside = {name: data for name, data in files.items() if name.startswith(f"{folder}/".lstrip("/"))}
        if folder and not inside:
            return self.missing("EntryNotFound")
        listed = [_file(name, data) for name, data in inside.items()]
        parents = {str(parent) for name in inside for parent in Path(name).parents} - {".", folder}
        listed += [{"type": "directory", "path": parent, "oid": sha} for parent in sorted(parents)]
        if parse_qs(urlsplit(self.path).query).get("recursive", ["False"])[0].lower() != "true":
            depth = len(Path(folder).parts) + 1
            listed = [each for each in listed if len(Path(each["path"]).parts) == depth]
        return self.told(listed)

    def file(self, repo: str, revision: str, name: str) -> None:
        if repo in self.hub.gated and not self.known:
            code = 403 if self.headers.get("Authorization") else 401
            return self.answer(code, b"{}", X_Error_Code="GatedRepo", X_Error_Message=_GATED.format(repo))
        if self.hub.busy:
            self.hub.busy -= 1
            return self.answer(503, b"busy")
        held = self.hub.files(repo, revision)
        if held is None or name not in held[1]:
            return self.missing("EntryNotFound")
        data = whole = held[1][name]
        headers = {"ETag": f'"{hashlib.sha1(whole).hexdigest()}"', "X_Repo_Commit": held[0]}
        code = 200
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(part[1]), min(int(part[2] or len(whole)), len(whole) - 1)
            data, code = whole[start : end + 1], 206
            headers["Content_Range"] = f"bytes {start}-{end}/{len(whole)}"
        if self.command == "GET":
            self.hub.sent[f"{repo}/{name}"] += len(data)
        return self.answer(code, data, **headers)

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


def at(monkeypatch: Any, hub: Hub, folder: Path, token: str | bool = False) -> None:
    """Have the libraries ask this hub, here and now, and keep in `folder` what they get; put back after."""
    import datasets
    import huggingface_hub
    from huggingface_hub import HfFileSystem, constants

    HfFileSystem.clear_instance_cache()
    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name, value in {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": False,
        "HF_UPDATE_DOWNLOAD_COUNTS": False,
        "HF_DATASETS_CACHE": folder / "tables",
        "DOWNLOADED_DATASETS_PATH": folder / "downloads",
        "EXTRACTED_DATASETS_PATH": folder / "extracted",
    }.items():
        monkeypatch.setattr(datasets.config, name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("RESIDUAL_CACHE", str(folder / "residual"))
    if token:
        monkeypatch.setenv("HF_TOKEN", str(token))
    else:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    getattr(huggingface_hub.utils, "close_session", bool)()  # older ones keep none
