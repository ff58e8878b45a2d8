"""Digests of bytes."""

from __future__ import annotations

import hashlib


def sha256(data: bytes | bytearray) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()
