"""Addresses of files and folders: paths, and URLs of the few protocols that are read. fsspec sees no other.

Among fsspec's protocols are some that run code or fetch what a file names (`reference://`), and `::` chains
them; an address may come from others.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from residual.errors import ResidualError
from residual.libraries import unusable

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PROTOCOLS = ("file", "http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "memory")
READ_ONLY = ("http", "https")
_LIBRARIES = {"http": "aiohttp requests", "https": "aiohttp requests", "s3": "s3fs", "gs": "gcsfs"}
_LIBRARIES |= {"gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}


def check_address(address: str) -> str | None:
    """The protocol of an address; None of a path on this machine.

    Raises:
        ResidualError: it is of no protocol that is read, or chains several by `::`.
    """
    protocol, is_url, rest = address.partition("://")
    chained = "::" in re.sub(r"^([^/]*@)?\[[^]/]*\]", "", rest)  # where no host of IPv6 has them
    if "\0" in address or (is_url and (chained or protocol not in PROTOCOLS)):
        shown = re.sub(r"\?[^/]*$", "?…", address)  # a signed one has a key there
        raise ResidualError(
            f"{shown!r} is no address that is read. Read are paths and addresses of "
            f"{', '.join(f'{known}://' for known in PROTOCOLS)}, without '::'."
        )
    return protocol if is_url else None


def file_system(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system and the path in it; asked for anew at each use, since a fork or a thread needs its own.

    Raises:
        ResidualError: as `check_address`; or the protocol's library isn't installed.
    """
    protocol = check_address(address)
    from fsspec import get_filesystem_class
    from fsspec.implementations.local import LocalFileSystem

    if protocol is None:
        return LocalFileSystem(), str(LocalFileSystem._strip_protocol(address))
    try:  # as `fsspec.url_to_fs`, which takes what is between the colons of a host for protocols
        kind = get_filesystem_class(protocol)
        return kind(**kind._get_kwargs_from_urls(address)), str(kind._strip_protocol(address))
    except ImportError as error:
        needed, cause = _LIBRARIES[protocol], error.__cause__
        missing = isinstance(cause, ModuleNotFoundError) and cause.name in needed.split()
        if cause is not None and not missing:
            raise unusable(needed.split()[0], repr(address), needed, cause) from error
        raise ResidualError(
            f"{address!r} needs a library that isn't installed ({error}): pip install {needed}."
        ) from error
    except Exception as error:
        raise ResidualError(f"{address!r} is no address that can be read: {error}.") from error
