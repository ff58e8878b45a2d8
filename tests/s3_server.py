"""An S3 server on this machine (moto's, over HTTP), and a proxy before it that counts and fails requests."""

from __future__ import annotations

import http.client
import logging
import os
import socket
import struct
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

SECRET = "a-key-that-nobody-may-see"
KEYS = {"AWS_ACCESS_KEY_ID": "an-id-that-nobody-may-see", "AWS_SECRET_ACCESS_KEY": SECRET}
NOWHERE_ELSE = {  # no file of the user's, no service of a machine in a cloud
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
BUSY = 503, "SlowDown", "Please reduce your request rate."
BROKEN = 500, "InternalError", "We encountered an internal error. Please try again."
FORBIDDEN = 403, "AccessDenied", "Access Denied"
DROPPED = 0, "", ""  # the connection is closed in the middle of the answer
_OF_THE_HOP = ("transfer-encoding", "connection", "content-length", "date", "server")


@dataclass(frozen=True)
class Request:
    """What was asked for and how much came back."""

    method: str  # LIST where a bucket is
    key: str
    range: str
    status: int
    bytes: int


Fault = tuple[int, str, str]


class Proxy:
    """In front of a server; `fault`, if there is one, tells of each request which fault to answer it with."""

    def __init__(self, port: int):
        self.requests: list[Request] = []
        self.fault: Callable[[Request], Fault | None] | None = None
        self._lock = Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, port))
        self._server.daemon_threads, self._server.handle_error = True, lambda *_: None  # a client that died
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextmanager
    def counted(self) -> Generator[list[Request]]:
        """The requests from here on."""
        start, seen = len(self.requests), []
        yield seen
        seen += self.requests[start:]

    def wrong(self, request: Request) -> Fault | None:
        with self._lock:
            return self.fault(request) if self.fault else None


def counts(requests: Sequence[Request]) -> dict[str, int]:
    """How many of each kind."""
    kinds = sorted({request.method for request in requests})
    return {kind: sum(request.method == kind for request in requests) for kind in kinds}


def _handler(proxy: Proxy, port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self._body()
            path, _, query = self.path.partition("?")
            method = "LIST" if self.command == "GET" and "list-type" in query else self.command
            asked = Request(method, path.lstrip("/"), self.headers.get("Range", ""), 0, 0)
            fault = proxy.wrong(asked)
            if fault is None:
                status, headers, content = self._answer(body)
            else:
                status, code, message = fault
                text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
                headers, content = [("Content-Type", "application/xml")], text.encode()
            if self.command != "HEAD" and fault is not DROPPED:
                headers = [*headers, ("Content-Length", str(len(content)))]
            told = Request(asked.method, asked.key, asked.range, status, len(content))
            proxy.requests.append(told)
            if fault is DROPPED:
                self._drop()
                return
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("Expect", "") == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(pieces)

        def _answer(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            try:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_THE_HOP}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                held = (
                    answer.getheaders()
                    if self.command == "HEAD"
                    else [each for each in answer.getheaders() if each[0].lower() not in _OF_THE_HOP]
                )
                return answer.status, held, answer.read()
            finally:
                connection.close()

        def _drop(self) -> None:
            """Half of an answer and then nothing, as from a network that breaks."""
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    return Handler


class Bucket:
    """A new bucket in the server, which is of this process: looked into without a request."""

    def __init__(self, name: str):
        self._backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        self.name = self._backend.create_bucket(name, "us-east-1").name

    def names(self, prefix: str) -> list[str]:
        keys = self._backend.buckets[self.name].keys
        return sorted(key.removeprefix(f"{prefix}/") for key in keys if key.startswith(f"{prefix}/"))

    def put(self, key: str, data: bytes) -> None:
        self._backend.put_object(self.name, key, data)

    def delete(self, key: str) -> None:
        self._backend.delete_object(self.name, key)

    def files(self, prefix: str) -> dict[str, bytes]:
        return {
            name: self._backend.get_object(self.name, f"{prefix}/{name}").value for name in self.names(prefix)
        }


@contextmanager
def serving(name: str = "bucket") -> Generator[tuple[Proxy, Bucket]]:
    """A server with a bucket and a proxy before it; the environment leads there, as it would to Amazon's."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    proxy = Proxy(port)
    with pytest.MonkeyPatch.context() as patch:
        for known in [known for known in os.environ if known.startswith("AWS_")]:
            patch.delenv(known)
        for variable, value in {**KEYS, **NOWHERE_ELSE, "AWS_ENDPOINT_URL": proxy.url}.items():
            patch.setenv(variable, value)
        try:
            yield proxy, Bucket(name)
        finally:
            forget()
            proxy.close()
            server.stop()
            s3_backends[DEFAULT_ACCOUNT_ID].reset()


def forget() -> None:
    """Make the next use of s3fs look into the environment again."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
