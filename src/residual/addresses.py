"""Addresses of files and folders: paths, and URLs of the few protocols that are read. fsspec sees no other.

Among fsspec's protocols are some that run code or fetch what a file names (`reference://`), and `::` chains
them; an address may come from others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

from residual.errors import ResidualError, UnreachableAddressError
from residual.files import shareable
from residual.libraries import first_line, unusable

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PROTOCOLS = ("file", "http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "memory")
READ_ONLY = ("http", "https")
_BUCKETS = ("s3", "gs", "gcs")  # which an address of theirs begins with
_LIBRARIES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}
_LIBRARIES |= {"gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
_EXTRAS = {"aiohttp": "'residual-vit[web]'", "s3fs": "'residual-vit[s3]'"}  # which they come with
AT_ONCE = 64  # requests to a server
# What S3 and its library call the faults of buckets, credentials and networks.
_NO_BUCKET = ("NoSuchBucket", "InvalidBucketName")
_BAD_KEY = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
_NO_KEY = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
_NO_KEY |= {"SSOError", "TokenRetrievalError", "LoginError", "NoAuthTokenError"}
_NETWORK = {"HTTPClientError", "ConnectionError", "TimeoutError", "ClientPayloadError", "gaierror"}
_ELSEWHERE = "Another service than Amazon's is named by AWS_ENDPOINT_URL."
_CREDENTIALS = (
    "Credentials are looked for as by Amazon's own programs: in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    f"or by AWS_PROFILE. {_ELSEWHERE}"
)


def check_address(address: str) -> str | None:
    """The protocol of an address; None of a path on this machine.

    Raises:
        ResidualError: it is of no protocol that is read, chains several by `::`, or has a password before a
            bucket.
    """
    protocol, is_url, rest = address.partition("://")
    chained = "::" in re.sub(r"^([^/]*@)?\[[^]/]*\]", "", rest)  # where no host of IPv6 has them
    if "\0" in address or (is_url and (chained or protocol not in PROTOCOLS)):
        shown = re.sub(r"(?<=://)[^/]*@", "…@", address)
        shown = re.sub(r"\?[^/]*$", "?…", shown)  # a signed one has a key there
        raise ResidualError(
            f"{shown!r} is no address that is read. Read are paths and addresses of "
            f"{', '.join(f'{known}://' for known in PROTOCOLS)}, without '::'."
        )
    bucket = rest.partition("/")[0]
    if protocol in _BUCKETS and ("@" in bucket or (":" in bucket and not bucket.startswith("arn:"))):
        raise ResidualError(
            f"No user or password is taken from an address: after {protocol}:// comes the bucket.",
            _CREDENTIALS if protocol == "s3" else "",
        )
    return protocol if is_url else None


def file_system(address: str, listings: bool = True) -> tuple[AbstractFileSystem, str]:
    """The file system and the path in it; asked for anew at each use, since a fork or a thread needs its own.

    Args:
        address: of a file or a folder.
        listings: whether what an object store listed once may be given again, though others write there.

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
        _keep_over_forks(kind)
        how = {"use_listings_cache": listings, "config_kwargs": {"max_pool_connections": AT_ONCE}}
        how = kind._get_kwargs_from_urls(address) | (how if protocol == "s3" else {})
        return kind(**how), str(kind._strip_protocol(address))
    except ImportError as error:
        needed = _LIBRARIES[protocol]
        install, cause = _EXTRAS.get(needed, needed), error.__cause__ or error
        raise unusable(needed, repr(address), install, cause) from error
    except Exception as error:
        raise ResidualError(f"{shareable(address)!r} is no address that can be read: {error}.") from error


@cache
def _keep_over_forks(kind: type[AbstractFileSystem]) -> None:
    """Have forked processes keep the connections that they inherit, unused: of one that is collected there
    the process that it is from hears nothing more (they share an epoll), and waits until it times out.
    """
    inherited: list[AbstractFileSystem] = []
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lambda: inherited.extend(kind._cache.values()), after_in_parent=inherited.clear
        )


@contextmanager
def remote_errors(address: str, doing: str, kept: str = "") -> Generator[None]:
    """Turn whatever a file system that isn't this machine's raises into one sentence, without what may not be
    shown; each has exceptions of its own, and some of them are no `OSError`.

    Args:
        address: of what is asked for.
        doing: what failed: "can't be read".
        kept: a sentence on what is kept.

    Raises:
        FileNotFoundError: as it is, but where it is the bucket that isn't there.
        UnreachableAddressError: in place of any other.
    """
    try:
        yield
    except (ResidualError, TypeError, AttributeError, NameError):  # the last three would be faults of ours
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError) and _code(error)[0] not in _NO_BUCKET:
            raise
        why, way = _why_and_way_out(address, error)
        # It keeps credentials, which may be others next time.
        type(file_system(address)[0]).clear_instance_cache()
        raise UnreachableAddressError(f"{shareable(address)!r} {doing}: {why}.{kept}", way) from error


def check_reached(address: str) -> None:
    """Find out before long work, by one request, whether a folder's server answers and knows who asks.

    Raises:
        UnreachableAddressError: it doesn't.
    """
    with suppress(FileNotFoundError), remote_errors(address, "can't be read"):
        system, root = file_system(address)
        system.cat_file(f"{root.rstrip('/')}/manifest.json", start=0, end=1)


def is_past_the_end(error: BaseException) -> bool:
    """Whether a server refused a range because the file ends in front of it."""
    return _code(error)[1] == 416


def _why_and_way_out(address: str, error: Exception) -> tuple[str, str]:
    """What is wrong, and the way out."""
    code, status = _code(error)
    kinds = {base.__name__ for cause in _causes(error) for base in type(cause).__mro__}
    named = f" ({code})" if code and not code.isdigit() else ""
    s3 = _CREDENTIALS if check_address(address) == "s3" else ""
    if code in _NO_BUCKET:
        bucket = address.partition("://")[2].partition("/")[0].rpartition("@")[2]
        return f"there is no bucket {bucket!r}", f"Make it first, or mend the address. {_ELSEWHERE}"
    if kinds & _NO_KEY:
        return f"there are no credentials for it ({first_line(error).rstrip('.')})", s3
    if code in _BAD_KEY:
        return f"the server doesn't take these credentials{named}", s3
    if isinstance(error, PermissionError) or status in (401, 403):
        way = f"Ask its owner for access, or use others. {s3}"
        return f"these credentials don't allow it{named}", way.strip()
    if status >= 500:
        return f"the server fails, asked several times ({code or status})", "Try the same again later."
    if kinds & _NETWORK and not status:
        return "the server can't be reached or breaks off, tried several times", (
            "Try the same again later." + (f" {_ELSEWHERE}" if s3 else "")
        )
    return getattr(error, "strerror", None) or first_line(error), ""


def _code(error: BaseException) -> tuple[str, int]:
    """How S3 names an error, and its status of HTTP; ("", 0) of what is no answer of a server."""
    for cause in _causes(error):
        if isinstance(answer := getattr(cause, "response", None), dict):
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return str(answer.get("Error", {}).get("Code", "")), int(status)
        if isinstance(status := getattr(cause, "status", None), int):  # of aiohttp
            return "", status
    return "", 0


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
