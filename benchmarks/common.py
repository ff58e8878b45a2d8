"""What the benchmarks share: options, sections one after another, and what each result says of itself."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch

from residual.devices import find_device


def parser_of(
    description: str | None, sections: Mapping[str, Any], default: Iterable[str] | None = None
) -> argparse.ArgumentParser:
    """With `--out` and `--sections`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sections", nargs="+", default=list(default or sections), choices=sections)
    return parser


def run_sections(
    options: argparse.Namespace, sections: Mapping[str, Callable[..., Any]], *given: Any, **about: Any
) -> None:
    """Call each section that was chosen with `given`; the results so far are in the file after each."""
    result: dict[str, Any] = {"command": command(), "versions": versions(find_device(None)), **about}
    result["cores"] = len(os.sched_getaffinity(0))
    for name in options.sections:
        result[name] = sections[name](*given)
        print(json.dumps(result[name]), flush=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def command() -> str:
    """How this was called, without the folder that results went to."""
    words = ["python", *sys.argv]
    where = words.index("--out") + 1
    words[where] = f"benchmarks/results/{Path(words[where]).name}"
    return shlex.join(words)


def versions(device: torch.device) -> dict[str, str]:
    return {
        "card": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "open_clip": open_clip.__version__,
    }


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}
