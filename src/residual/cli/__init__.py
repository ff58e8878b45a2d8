"""The command `residual`: one file a command, no logic."""

from __future__ import annotations

import sys

from residual.errors import ResidualError


def main() -> None:
    """Run the command line; what a user can cause ends in one sentence and exit code 2."""
    from residual.cli.app import app

    try:
        app()
    except ResidualError as error:
        print(f"residual: {error}", file=sys.stderr)
        sys.exit(2)
