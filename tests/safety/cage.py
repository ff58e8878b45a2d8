"""Where hostile files are opened: a process that has everything imported forks another for each of them.

A forked process is watched by an audit hook and held by limits: what would run a program, call the network or
open a file elsewhere ends it at once. Its memory, its time and how it ended are told in a line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(folder)
    for folder in (Path(__file__).parent, *(Path(__file__).parents[1] / name for name in ("", "adapters")))
]

SECONDS = 30.0
BYTES = 2**30  # above what the imported libraries take
ROOM = 3 * BYTES  # of addresses: so that the machine survives what takes more
_REPORT = 9  # file descriptor of a child's report
_RUNS = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "os.fork", "os.forkpty"),
    *("subprocess.Popen", "pty.spawn", "ctypes.dlopen"),
)
_CALLS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind")
_CALLS += ("urllib.Request", "http.client.connect")
_CHANGES = ("os.remove", "os.rmdir", "os.rename", "os.mkdir", "os.chmod", "os.link", "os.symlink")
_CHANGES += ("shutil.rmtree", "os.truncate")
_OPEN = ("/proc/", "/sys/", "/etc/mime.types", "/etc/localtime", "/usr/share/zoneinfo", "/usr/share/fonts")
_OPEN += (
    "/dev/null",
    "/dev/urandom",
    "/dev/shm",
    "/etc/apache2/mime.types",
    "/etc/httpd/",
    "/usr/lib",
    "/lib",
)


class Forbidden:
    """The audit hook of a child: the first thing that isn't allowed is reported, and then it's over."""

    def __init__(self, place: Path, secret: Path):
        own = [
            place.parent,
            tempfile.gettempdir(),
            sys.prefix,
            sys.base_prefix,
            *sys.path,
            Path(__file__).parents[2],
        ]
        own += [os.environ["RESIDUAL_CACHE"], os.environ["HF_HOME"], os.environ["MPLCONFIGDIR"]]
        self.roots = tuple(os.path.realpath(root) + os.sep for root in own if str(root)) + _OPEN
        self.writable = tuple(
            os.path.realpath(root) + os.sep
            for root in (
                place.parent,
                os.environ["RESIDUAL_CACHE"],
                os.environ["HF_HOME"],
                os.environ["MPLCONFIGDIR"],
            )
        )
        self.secret = os.path.realpath(secret)
        self.busy = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.busy or ("." not in event and event not in ("open", "exec", "import")):
            return
        self.busy = True
        try:
            if event in _RUNS and not self._library(event, arguments):
                self._end(f"runs: {event} {arguments[:2]!r}")
            elif event in _CALLS:
                self._end(f"calls: {event} {arguments[1:]!r}")
            elif event == "open" and isinstance(arguments[0], str | bytes):
                self._opened(os.fsdecode(arguments[0]))
            elif event == "exec":
                name = getattr(arguments[0], "co_filename", "")
                if name.startswith("/") and not self._inside(name, self.roots[1:]):
                    self._end(f"runs: the code of {name}")
            elif event in _CHANGES and isinstance(arguments[0], str | bytes):
                path = os.path.realpath(os.fsdecode(arguments[0]))
                if not self._inside(path, (*self.writable, os.path.realpath(tempfile.gettempdir()) + os.sep)):
                    self._end(f"changes: {event} {path}")
        finally:
            self.busy = False

    def _opened(self, name: str) -> None:
        path = os.path.realpath(name)
        if self._inside(path, (self.secret,)) or not self._inside(path, self.roots):
            self._end(f"opens: {path}")

    @staticmethod
    def _library(event: str, arguments: tuple[Any, ...]) -> bool:
        """Libraries of the installed packages are loaded, and no others."""
        name = str(arguments[0]) if event == "ctypes.dlopen" else None
        return name is not None and (
            name == "None"
            or "/" not in name
            or os.path.realpath(name).startswith((sys.prefix, "/usr/lib", "/lib"))
        )

    @staticmethod
    def _inside(path: str, roots: tuple[str, ...]) -> bool:
        return (path + os.sep).startswith(roots)

    @staticmethod
    def _end(text: str) -> None:
        report("forbidden", text)
        os._exit(3)


def report(ending: str, text: str, result: object = None) -> None:
    os.write(_REPORT, json.dumps({"ending": ending, "text": text[:2000], "result": result}).encode())


def child(entry: Any, place: Path, secret: Path, log: int, options: dict[str, Any]) -> None:
    """Do the work under watch, and report how it ended."""
    from residual.errors import ResidualError

    os.setsid()
    for stream in (1, 2):
        os.dup2(log, stream)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.chdir(place.parent)
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
    resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if options.pop("warm", False):
        entry(place, **options)
        report("warm", "", sorted(sys.modules))
        return
    sys.addaudithook(Forbidden(place, secret))
    try:
        result = entry(place, **options)
    except ResidualError as error:
        report("refused", str(error))
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "/residual/" in f.filename]
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in [last, *reversed(ours[-2:])])
        report("raised", f"{type(error).__name__}: {error} [{where}]")
    else:
        report("done", "", result)


class Watch:
    """What is opened in a folder, whoever opens it: inotify tells of C and Rust, too."""

    def __init__(self, folder: Path):
        libc = ctypes.CDLL(None, use_errno=True)
        self.handle = libc.inotify_init1(os.O_NONBLOCK)
        open_, access = 0x20, 0x1
        libc.inotify_add_watch(self.handle, os.fsencode(folder), open_ | access)

    def seen(self) -> bool:
        try:
            return bool(os.read(self.handle, 65536))
        except BlockingIOError:
            return False


def run(entry: Any, place: str, secret: str, watch: Watch, options: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as log:
        receive, send = os.pipe()
        watch.seen()
        with open("/proc/self/status") as file:  # a fork has the pages of its own, and no files' yet
            base = sum(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))
        start = time.monotonic()
        if not (number := os.fork()):
            code = 1
            try:
                os.dup2(send, _REPORT)
                child(entry, Path(place), Path(secret), log.fileno(), options)
                code = 0
            finally:
                os._exit(code)
        os.close(send)
        parts, ended = _read(receive, number, start + SECONDS)
        if not ended:
            os.kill(number, signal.SIGKILL)
        _, status, usage = os.wait4(number, 0)
        seconds = time.monotonic() - start
        log.seek(0)
        said = log.read(20000).decode(errors="replace")
    answer = json.loads(b"".join(parts) or "{}")
    if not answer:
        code = os.waitstatus_to_exitcode(status)
        answer = {"ending": "hung" if not ended else "died", "text": f"exit code {code}: {said[-300:]}"}
    if watch.seen() and answer["ending"] != "forbidden":
        answer |= {"ending": "forbidden", "text": f"opens a file of the secret folder: {answer['text']}"}
    return answer | {"seconds": seconds, "bytes": usage.ru_maxrss * 1024 - base, "said": said}


def _read(receive: int, number: int, until: float) -> tuple[list[bytes], bool]:
    """What a child reports, and whether it has ended in time."""
    parts, handle = [], os.pidfd_open(number)
    os.set_blocking(receive, False)
    try:
        while True:
            ready = select.select([handle, receive], [], [], max(0.0, until - time.monotonic()))[0]
            if receive in ready and (part := os.read(receive, 65536)):
                parts.append(part)
            elif handle in ready or not ready:
                return parts, bool(ready)
            else:  # it has closed its end, and is ending
                return parts, bool(select.select([handle], [], [], max(0.0, until - time.monotonic()))[0])
    finally:
        os.close(handle)
        os.close(receive)


def serve() -> None:
    import entries

    watch = None
    for line in sys.stdin:
        request = json.loads(line)
        watch = watch or Watch(Path(request["secret"]))
        entry = entries.ENTRIES[request.pop("entry")]
        answer = run(entry, request.pop("place"), request.pop("secret"), watch, request)
        if answer["ending"] == "warm":
            for name in answer["result"]:
                if name not in sys.modules and not name.startswith(("__", "pyarrow._cuda")):
                    try:
                        __import__(name)
                    except Exception:  # some are made by others, under names of their own
                        continue
            answer["result"] = None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
