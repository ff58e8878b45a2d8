"""The command `residual`: one file a command, no logic."""

from __future__ import annotations

import sys

from residual.errors import (
    DamagedStoreError,
    NoStoreError,
    OtherResultError,
    ResidualError,
    StoreEncoderError,
    UnclearColumnError,
    UnreadableImageError,
)

# The way out of an error, where the command line has other words for it than Python.
HINTS: dict[type[ResidualError], str] = {
    UnreadableImageError: "Mend or remove it, or go on without such images: --on-error skip.",
    NoStoreError: "`residual encode` makes one.",
    DamagedStoreError: "Remove that file and run the same `encode` again: it makes good what is missing.",
    StoreEncoderError: "Name the encoder that made the store: --encoder NAME.",
    OtherResultError: "Choose another folder (--out, --stores), or remove it.",
}


def main() -> None:
    """Run the command line; what a user can cause ends in one sentence and exit code 2."""
    from residual.cli.app import app

    try:
        app()
    except UnclearColumnError as error:
        option = error.argument.replace("_", "-")
        _end(f"{error.message} Name the one that is meant: --{option}.")
    except ResidualError as error:
        _end(f"{error.message} {HINTS.get(type(error), error.hint)}")


def _end(sentence: str) -> None:
    print(f"residual: {sentence}".rstrip(), file=sys.stderr)
    sys.exit(2)
