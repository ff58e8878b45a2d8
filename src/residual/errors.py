"""What goes wrong because of input: one exception class, one clear sentence each, with the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ResidualError(ValueError):
    """Input that the library cannot work with; the message says what was expected, what came, and where."""


class UnreadableImageError(ResidualError):
    """An image that cannot be decoded; `sample_id` names it, `reason` says why not."""

    def __init__(self, sample_id: str, reason: str):
        super().__init__(
            f"Image {sample_id!r} can't be read ({reason}). Mend or remove it, or go on without "
            "such images: --on-error skip."
        )
        self.sample_id, self.reason = sample_id, reason


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ResidualError:
    """The error for a name that isn't there: it lists the nearest known names, or all where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {', '.join(known)}."
    return ResidualError(f"Unknown {kind} {name!r}. {hint}")
