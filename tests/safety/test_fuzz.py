"""Hostile files of every kind, drawn by hypothesis and opened by the real code: nothing runs, hangs or leaks.

In CI a few seconds, the same examples every time. By hand as long as is said, and others every time:

RESIDUAL_FUZZ_SECONDS=3600 pytest tests/safety/test_fuzz.py -s
RESIDUAL_FUZZ_REPORT=FOLDER  goes on behind a finding, and keeps each in FOLDER
RESIDUAL_FUZZ_SEED=NUMBER    the examples of the run that told this number
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cage
import cases
import examples
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="inotify, pidfd and limits of memory are Linux's"),
]
HOURS = "RESIDUAL_FUZZ_SECONDS" in os.environ
SECONDS = float(os.environ.get("RESIDUAL_FUZZ_SECONDS", "6")) / len(cases.KINDS)
REPORT = os.environ.get("RESIDUAL_FUZZ_REPORT")
MEMORY = ("MemoryError", "allocate memory", "Unable to allocate", "can't allocate")


class Cage:
    """The process that forks others, and the folders that they are shown."""

    def __init__(self, folder: Path):
        self.folder, self.secret = folder, folder / "secret"
        self.secret.mkdir()
        (self.secret / "canary.png").write_bytes(examples.picture(1))
        (self.secret / "canary.gin").write_text("run.seed = 7\n")
        os.mkfifo(self.secret / "pipe")
        self.examples: dict[str, dict[str, bytes]] = {}
        self.results: dict[tuple[str, str], object] = {}
        here = Path(__file__).parent
        own = {name: str(folder / name) for name in ("cache", "hub", "mpl")}
        environment = os.environ | {
            "RESIDUAL_CACHE": own["cache"],
            "HF_HOME": own["hub"],
            "MPLCONFIGDIR": own["mpl"],
        }
        environment |= {
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(folder),
            "HF_HUB_OFFLINE": "0",
            "COLUMNS": "200",
        }
        environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "ignore"}
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, here / "cage.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment,
        )  # fmt: skip

    def files(self, example: str) -> dict[str, bytes]:
        """Of a good example, made once; the code is run once on it, so that what it imports is there."""
        if example not in self.examples:
            self.examples[example] = examples.made(example, self.folder / "examples").files
        return self.examples[example]

    def good(self, case: cases.Case) -> object:
        """What comes of the good example."""
        key = (case.entry, case.example, json.dumps(case.options.get("words", ""))[:30])
        if key not in self.results:
            options = {
                k: v for k, v in case.options.items() if k not in ("cell", "texts", "picture", "params")
            }
            same = cases.Case(case.entry, case.example, {}, options)
            self.ask(same, warm=True)
            answer = self.ask(same)
            assert answer["ending"] == "done", (same, answer)
            self.results[key] = answer["result"]
        return self.results[key]

    def ask(self, case: cases.Case, **more: object) -> dict:
        place = self.folder / "case" / "files"
        shutil.rmtree(place.parent, ignore_errors=True)
        for name, data in {**self.files(case.example), **case.changed}.items():
            self.put(place / name, data)
        options = dict(case.options)
        if "cell" in options:
            write_table(place / "train", options, self.secret)
        for name in ("cell", "texts", "picture"):
            options.pop(name, None)
        request = {"entry": case.entry, "place": str(place), "secret": str(self.secret), **options, **more}
        self.process.stdin.write(json.dumps(request).replace("{secret}", str(self.secret)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        self.log.seek(0)
        assert line, self.log.read()[-3000:]
        ran = [path for path in (place / "ran", place.parent / "ran", self.folder / "ran") if path.exists()]
        answer = json.loads(line)
        return answer | {"ending": "forbidden", "text": f"made {ran[0].name}"} if ran else answer

    def put(self, path: Path, data: bytes | str | None) -> None:
        if data is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if data == cases.PIPE:
            os.mkfifo(path)
        elif isinstance(data, str):
            path.symlink_to(data.replace("{secret}", str(self.secret)))
        else:
            path.write_bytes(
                data.replace(b"{secret}", bytes(self.secret)).replace(
                    b"{place}", bytes(self.folder / "case" / "files")
                )
                if len(data) < 10**6
                else data
            )

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()
        self.log.close()


def write_table(at: Path, options: dict, secret: Path) -> None:
    """The example's train split with one cell of another kind."""
    import datasets

    cell = options["cell"].replace("{secret}", str(secret))
    shown = (
        {"bytes": bytes.fromhex(cell), "path": None} if options["picture"] else {"bytes": None, "path": cell}
    )
    rows = [shown, *({"bytes": examples.picture(20 * k), "path": None} for k in range(7))]
    kind: Any = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    if options["texts"]:
        rows, kind = [cell] * 8, datasets.Value("string")
    kinds = {"image": kind, "label": datasets.ClassLabel(names=["cat", "dog"])}
    pipe, link = (at / name for name in ("pipe", "link.png"))
    table = datasets.Dataset.from_dict(
        {"image": rows, "label": [0, 1] * 4}, features=datasets.Features(kinds)
    )
    shutil.rmtree(at)
    table.save_to_disk(at)
    if not options["texts"]:  # so that the library itself looks at no file while it writes
        info = json.loads((at / "dataset_info.json").read_text())
        info["features"]["image"] = {"_type": "Image"}
        (at / "dataset_info.json").write_text(json.dumps(info))
    os.mkfifo(pipe)
    link.symlink_to(secret / "canary.png")


@pytest.fixture(scope="module")
def jail(tmp_path_factory):
    import datasets

    datasets.disable_progress_bars()
    made = Cage(tmp_path_factory.mktemp("safety"))
    yield made
    made.close()


def judged(case: cases.Case, answer: dict, good: object) -> str:
    """What is wrong with how a process ended, or nothing."""
    text, ending = answer["text"], answer["ending"]
    if ending in ("forbidden", "hung", "died", "raised"):
        return f"{ending}: {text} {answer['said'][-300:] if case.entry == 'command' else ''}".rstrip()
    if answer["bytes"] > cage.BYTES or any(word in text + answer["said"] for word in MEMORY):
        return f"takes {answer['bytes'] / 2**30:.1f} GB: {text}"
    shown = text + (answer["said"] if case.entry == "command" else "")
    if "Traceback" in shown or ("report" in shown and "bug" in shown):
        return f"traceback: {shown[-600:]}"
    if odd := [letter for letter in shown.replace("\n", "") if not letter.isprintable()]:
        return f"shows control characters {odd[:3]!r}: {shown[:300]!r}"
    if ending == "refused" and "\n" in text:
        return f"several lines: {text!r}"
    if case.as_before and ending == "done" and answer["result"] != good:
        return "other numbers or names, without a word"
    return ""


@pytest.mark.timeout(10 * SECONDS + 900)
@pytest.mark.parametrize("kind", cases.KINDS)
def test_nothing_runs_reads_elsewhere_hangs_or_takes_over_a_gigabyte(jail, kind):
    strategy, start = cases.KINDS[kind](jail.files), time.monotonic()
    endings: Counter[str] = Counter()
    peak = {"bytes": 0, "seconds": 0.0}
    found: dict[str, tuple[int, str, cases.Case]] = {}

    def one(case: cases.Case) -> None:
        nonlocal start
        if time.monotonic() - start > SECONDS and (REPORT or not problems):
            return
        before = time.monotonic()
        good = jail.good(case)
        start += time.monotonic() - before
        answer = jail.ask(case)
        problem = judged(case, answer, good)
        endings[answer["ending"] + (f" {answer['result']}" if case.entry == "command" else "")] += 1
        for name in peak:
            peak[name] = max(peak[name], answer[name])
        if problem and REPORT:
            key, size = signature(case, problem), sum(len(data or "") for data in case.changed.values())
            if key not in found or size < found[key][0]:
                found[key] = (size, problem, case)
        elif problem:
            problems.append(problem)
            raise AssertionError(f"{problem}\n{case}")

    problems: list[str] = []
    first = number = int(os.environ.get("RESIDUAL_FUZZ_SEED", random.randrange(2**32) if HOURS else 0))
    while time.monotonic() - start < SECONDS:
        phases = (Phase.generate,) if REPORT else (Phase.generate, Phase.shrink)
        limits = settings(
            max_examples=50,
            deadline=None,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        )
        seed(number)(limits(given(strategy)(lambda case: one(case))))()
        number += 1
    told = {"kind": kind, "examples": endings.total(), **endings, **peak, "seed": first}
    print(f"\n{json.dumps(told)}")
    if REPORT:
        keep(Path(REPORT), kind, told, found)
    assert not found, "\n".join(f"{key}\n    {problem}" for key, (_, problem, _) in found.items())


def signature(case: cases.Case, problem: str) -> str:
    """The same for findings of one kind."""
    place = problem.rpartition("[")[2] if "[" in problem else problem[:50]
    what = [part[:40] for part in problem.split(":")[:2]]
    return " ".join([case.entry, case.example, *what, place])


def keep(folder: Path, kind: str, told: dict, found: dict[str, tuple[int, str, cases.Case]]) -> None:
    """A folder for each finding: what was changed of the good example, and what was wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "figures.jsonl").open("a") as file:
        file.write(json.dumps(told) + "\n")
    for number, (key, (_, problem, case)) in enumerate(sorted(found.items())):
        at = folder / f"{kind}-{number}"
        at.mkdir(exist_ok=True)
        (at / "what.txt").write_text(f"{key}\n{problem}\n{case}\n", errors="backslashreplace")
        for name, data in case.changed.items():
            if isinstance(data, bytes) and len(data) < 10**6:
                (at / name.replace("/", "__")[:100]).write_bytes(data)
