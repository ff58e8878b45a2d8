"""The explorer's server as others reach it: a real one on 127.0.0.1, asked by sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import threading
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tiny import TinyImages, tiny_encoder

from residual import encode_dataset
from residual.errors import ResidualError
from residual.explore.app import application
from residual.explore.built import built
from residual.explore.export import export_page
from residual.explore.guard import MOST_BYTES
from residual.explore.serving import address_of, listening, serve, server_of
from residual.workflows.exploration import Exploration, Sources

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture(scope="module")
def exploration():
    encoder = tiny_encoder(1)
    store = encode_dataset(encoder, TinyImages(30))
    return Exploration(Sources(()), [replace(store, class_names=("<b>", "b", "c", "d"))], encoder)


def running(server, found):
    thread = threading.Thread(target=server.run, kwargs={"sockets": [found]}, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def serving(exploration):
    """Port by port a server without a token, one with it, and one behind a prefix."""
    servers, ports, threads = [], [], []
    for token in (None, TOKEN, "prefix"):
        server = server_of(exploration, None if token == "prefix" else token, lambda error: "Try another.")
        if token == "prefix":
            server.config.app = Starlette(routes=[Mount("/user/me", application(exploration))])
        found = listening("127.0.0.1", 0)
        threads.append(running(server, found))
        servers.append(server)
        ports.append(found.getsockname()[1])
    yield ports
    for server, thread in zip(servers, threads, strict=True):
        server.should_exit = True
        thread.join(10)


def ask(port, path, body=None, **headers):
    """Status, headers and body."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, names)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_answers_are_json_and_errors_are_sentences(serving, exploration):
    port = serving[0]
    status, headers, body = ask(port, "/api/heads?score=accuracy")
    assert (status, headers["Cache-Control"], headers["Content-Type"]) == (
        200,
        "no-store",
        "application/json",
    )
    assert json.loads(body) == json.loads(json.dumps(exploration.heads()))
    assert json.loads(ask(port, "/api/about")[2])["classes"][0] == "<b>"
    state = {"off": ["1.2"], "pictures": [3]}
    told = json.loads(ask(port, "/api/turn", json.dumps(state).encode())[2])
    assert told["accuracy"] == exploration.turn(state)["accuracy"]
    for path, match in (
        ("/api/heads?score=acuracy", "Did you mean 'accuracy'"),
        ("/api/heads?scores=accuracy", "Unknown parameter 'scores'"),
        ("/api/unit", "Parameters are missing: unit"),
        ("/api/heads?score=a&score=b", "comes twice"),
        ("/api/pictures?limit=many", "limit is a whole number"),
    ):
        status, headers, body = ask(port, path)
        assert status == 400
        assert match in json.loads(body)["error"]
        assert json.loads(body)["hint"] == "Try another."
    for path, body in (("/api/turn", b"[]"), ("/api/turn", b"{"), ("/api/turn", b'{"off": 3}')):
        assert ask(port, path, body)[0] == 400
    for path, body in (("/api/__init__", None), ("/api/warm", None), ("/api/heads", b"{}"), ("/x", None)):
        status, _, told = ask(port, path, body)
        assert status == 404
        assert json.loads(told)["hint"] is None
    status, headers, body = ask(port, "/api/save", json.dumps({**state, "as": "mask"}).encode())
    assert headers["Content-Disposition"] == 'attachment; filename="mask.json"'
    assert json.loads(body)["mask"]["off"] == ["1.2"]


@pytest.mark.parametrize(("classes", "kinds"), [(4, ("head",)), (30, ("head", "mlp", "emb"))])
def test_what_tells_no_classes_apart_is_looked_at_nevertheless(classes, kinds, tmp_path):
    encoder = tiny_encoder(1)
    store = encode_dataset(encoder, TinyImages(12, classes), kinds=kinds)
    found = Exploration(Sources(()), [store], encoder)
    about = found.about()
    assert about["baseline"] is None
    assert about["can"]["turn"] != about["can"]["map"] is True
    assert about["notes"][-1].startswith("Nothing tells the classes apart")
    keys = [score["key"] for score in about["scores"]]
    assert keys == ["correlation"] * (len(kinds) == 3) + ["dimension", "norm"]
    assert all(len(found.heads(key)["units"]) == len(found.parts.kept_units) for key in keys)
    assert len(found.unit("1.0")["components"]) > 0
    assert export_page(found, tmp_path / "page.html").size > 10**5


def test_a_fault_is_logged_and_told_in_one_sentence(serving, exploration, monkeypatch, caplog):
    def broken():
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(exploration, "moves", broken)
    with caplog.at_level(logging.ERROR):
        status, headers, body = ask(serving[0], "/api/moves")
    assert status == 500
    assert "secret" not in body.decode()
    assert "secret of the inside" in caplog.text
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_pages_files_are_there_under_any_prefix(serving):
    for port, prefix in ((serving[0], ""), (serving[2], "/user/me")):
        status, headers, body = ask(port, f"{prefix}/")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert headers["Access-Control-Allow-Origin"] is None
        assert b'src="/' not in body
        assert json.loads(ask(port, f"{prefix}/api/about")[2])["samples"] == 30
    status, headers, body = ask(serving[0], "/explore.js", Accept_Encoding="gzip")
    assert headers["Content-Type"].startswith("text/javascript")
    assert gzip.decompress(body) == built()["explore.js"][0]
    assert ask(serving[0], "/explore.js", If_None_Match=headers["ETag"])[0] == 304
    for path in ("/../serving.py", "/static/explore.js", "/%2e%2e/serving.py"):
        assert ask(serving[0], path)[0] == 404


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1", "[::1]:80", "LOCALHOST:9"])
def test_this_machine_may_ask_by_any_port(serving, host):
    assert ask(serving[0], "/api/about", Host=host)[0] == 200


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (None, {"Host": "evil.example"}),  # a name of another's that leads here
        (None, {"Host": "localhost.evil.example:6010"}),
        (None, {"Host": "127.0.0.1@evil.example"}),
        (b"{}", {"Origin": "http://evil.example"}),
        (b"{}", {"Origin": "null"}),
        (b"{}", {"Origin": "http://127.0.0.1:1"}),  # another server of this machine
        (b"{}", {"Sec_Fetch_Site": "cross-site"}),
        (None, {"Sec_Fetch_Site": "cross-site"}),
        (None, {"Origin": "http://evil.example"}),
    ],
)
def test_other_pages_get_nothing(serving, body, headers):
    status, _, told = ask(serving[0], "/api/turn" if body else "/api/about", body, **headers)
    assert status == 403
    assert "classes" not in json.loads(told)


def test_too_much_is_refused_told_or_not(serving):
    assert ask(serving[0], "/api/drop", b"x", Content_Length=str(MOST_BYTES + 1))[0] == 413
    with socket.create_connection(("127.0.0.1", serving[0])) as wire:
        wire.sendall(b"POST /api/turn HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + bytes(2**20) + b"\r\n"
        answer = b""
        wire.settimeout(20)
        try:
            for _ in range(MOST_BYTES // 2**20 + 2):
                wire.sendall(piece)
            answer = wire.recv(200)
        except OSError:  # the server has hung up
            answer = answer or b"gone"
        assert answer == b"gone" or b" 413 " in answer
    request = urllib.request.Request(f"http://127.0.0.1:{serving[0]}/api/about", method="PUT")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request)


def test_with_a_token_data_is_for_those_who_know_it(serving):
    port = serving[1]
    for path, headers in (
        ("/api/about", {}),
        ("/api/about?token=", {}),
        ("/api/about?token=a-token", {}),
        ("/api/about", {"Authorization": "Bearer x"}),
        ("/api/about", {"Authorization": f"Basic {TOKEN}"}),
        ("/api/about", {"Cookie": f"token={TOKEN}"}),
    ):
        assert ask(port, path, **headers)[0] == 401
    assert ask(port, f"/api/about?token={TOKEN}", Host="far.example:6010")[0] == 200
    assert ask(port, "/api/heads?score=norm", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(port, f"/api/turn?token={TOKEN}", b"{}")[0] == 200
    assert ask(port, f"/api/turn?token={TOKEN}", b"{}", Origin="http://evil.example")[0] == 403
    assert ask(port, "/")[0] == 200  # the page itself, which is in the package
    assert "Set-Cookie" not in ask(port, f"/?token={TOKEN}")[1]


def test_where_is_listened(exploration):
    with pytest.raises(ResidualError, match="give a token"):
        serve(exploration, "0.0.0.0", 0)
    with pytest.raises(ResidualError, match="Nothing can be served on"):
        listening("192.0.2.7", 0)
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listening("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] <= port + 50
            assert address_of(second, "T") == f"http://127.0.0.1:{second.getsockname()[1]}/?token=T"


def test_small_answers_are_sent_at_once():
    """asyncio sees to it where a socket names its protocol; it isn't so of those made without."""

    async def connected() -> int:
        told = asyncio.get_running_loop().create_future()

        def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told.set_result(
                writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            )
            writer.close()

        with listening(port=0) as place:
            server = await asyncio.start_server(met, sock=place)
            async with server:
                _, writer = await asyncio.open_connection(*place.getsockname())
                found = await told
                writer.close()
                await writer.wait_closed()
        return found

    assert asyncio.run(connected())
