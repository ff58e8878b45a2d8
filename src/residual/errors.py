"""What goes wrong because of input: one exception class, one clear sentence each, with the way out."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

# They turn the order of what is shown around them.
_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def printable(text: str) -> str:
    """`text` of unknown origin as one line that a terminal or a page can show: whatever moves the cursor,
    breaks the line or turns the writing's direction is escaped, as in `\\x1b`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(letter) if _acts(letter) else letter for letter in text)


def _acts(letter: str) -> bool:
    of_line = unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")
    return of_line or unicodedata.bidirectional(letter) in _BIDI


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode()


class ResidualError(ValueError):
    """Input that the library cannot work with; the message says what was expected, what came, and where.

    Callers tell errors apart by their class, never by their text.

    Args:
        message: all but the way out.
        hint: the way out, in Python's words; the command line has its own for some classes.
    """

    def __init__(self, message: str, hint: str = ""):
        message, hint = printable(message), printable(hint)
        super().__init__(f"{message} {hint}" if hint else message)
        self.message, self.hint = message, hint

    def __reduce__(self) -> tuple[Any, ...]:
        """As it is, whatever its class is made of: one that a worker raises comes through a pickle."""
        return _as_it_was, (type(self), self.args), self.__dict__


def _as_it_was(kind: type[ResidualError], args: tuple[Any, ...]) -> ResidualError:
    error = kind.__new__(kind)
    error.args = args
    return error


class ResidualWarning(UserWarning):
    """What works, and may not be what is wanted: each kind has a class, by which it can be silenced."""


class LeftOutWarning(ResidualWarning):
    """What is left out of a dataset, or of settings that are shared: how much, and some of it."""


class UnderstoodWarning(ResidualWarning):
    """What a user gave was understood in one of two ways: in which, and how to have the other."""


class SharedNameWarning(ResidualWarning):
    """Classes that have one name, so that texts don't tell them apart: which."""


class FewSamplesWarning(ResidualWarning):
    """Too few test pictures to tell anything: how wide the interval of an accuracy of them is."""


class SharedSamplesWarning(ResidualWarning):
    """Samples that something is chosen by, or fitted on, and that it is tested on as well: how many."""


class RawPixelsWarning(ResidualWarning):
    """Pixels that look as if they hadn't gone through an encoder's preprocessing."""


class UnreadableImageError(ResidualError):
    """An image that cannot be decoded; `sample_id` names it, `reason` says why not."""

    def __init__(self, sample_id: str, reason: str):
        reason = printable(reason)
        super().__init__(
            f"Image {sample_id!r} can't be read ({reason}).",
            'Mend or remove it, or go on without such images: on_error="skip".',
        )
        self.sample_id, self.reason = sample_id, reason


class TooManySkippedError(ResidualError):
    """More images of a dataset can't be read than may be left out."""

    def __init__(self, message: str):
        super().__init__(message, "Mend or remove them, or let more be left out: `Allowance(share, number)`.")


class UnclearColumnError(ResidualError):
    """A table has no column, or several, that may be what is wanted; `argument` is the one that names it."""

    def __init__(self, message: str, argument: str):
        super().__init__(message, f"Name the one that is meant: {argument}.")
        self.argument = argument


class NoStoreError(ResidualError):
    """There is no store at a path or an address."""

    def __init__(self, message: str):
        super().__init__(message, "`encode_dataset` makes one.")


class UnreachableAddressError(ResidualError):
    """An object store, or another server, that can't be reached, fails, or doesn't let one in."""


class DamagedStoreError(ResidualError):
    """A file of a store that isn't what was written."""

    def __init__(self, message: str):
        super().__init__(
            message,
            "Remove that file and encode again: `encode_dataset` makes good what is missing.",
        )


class StoreEncoderError(ResidualError):
    """The encoder of a store can't be loaded by the name that the store notes, or has other weights."""

    def __init__(self, message: str):
        super().__init__(message, "Give the name of the encoder that made the store: encoder=NAME.")


class AdapterEncoderError(ResidualError):
    """An adapter is for an encoder that only its own config names: `encoder_name`, as it is called there."""

    def __init__(self, message: str, encoder_name: str):
        super().__init__(message, "Give it, or the name that you load it by: encoder=NAME.")
        self.encoder_name = encoder_name


class SharedSamplesError(ResidualError):
    """What is chosen by samples, or fitted on them, is to be tested on the same ones."""

    def __init__(self, message: str):
        super().__init__(message, "Test on samples that had no part in it.")


class MissingClassError(ResidualError):
    """A class has no sample to train on."""

    def __init__(self, message: str):
        ignore = 'say missing="ignore" in the settings'
        super().__init__(message, f"Add some, make a classifier without them, or {ignore}.")


class OtherPoolingError(ResidualError):
    """Bases of other tokens' contributions than those that they are to be used with, as of patches."""

    def __init__(self, message: str):
        super().__init__(message, "Take bases of a store of the same pooling.")


class UnreachableHubError(ResidualError):
    """The hub can't be asked: there is no network, or it is switched off (HF_HUB_OFFLINE)."""


class OtherResultError(ResidualError):
    """A store, or a result of an experiment, that is of something else than what is asked for."""

    def __init__(self, message: str):
        super().__init__(message, "Choose another folder, or remove it.")


class ExistingError(ResidualError):
    """What an earlier call wrote is where something is to be written."""

    def __init__(self, message: str):
        super().__init__(message, "To replace it: overwrite=True.")


class ForeignError(ResidualError):
    """Something of another kind is where something is to be written: it is left alone."""

    def __init__(self, message: str):
        super().__init__(message, "Choose another place, or move that away.")


class AtWorkError(ResidualError):
    """Another process is writing to the same place."""


class NoPlaceError(ResidualError):
    """Workers are to write stores, and there is no place for them."""

    def __init__(self, message: str = "", hint: str = ""):
        message = message or "Workers write coordinates into stores, in a place that all of them reach."
        super().__init__(message, hint or 'Name one: stores="s3://bucket/stores", or a folder.')


class WorkerDiedError(ResidualError):
    """A process that did a part of the work ended in the middle of it."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message, hint or "Call the same again: it goes on behind what is kept.")


class LaterVersionError(ResidualError):
    """A file that a later version of the library wrote, which this one can't read whole."""


class UnknownFieldsError(ResidualError):
    """A file of this version of the library, or of an earlier one, with fields that are none of it."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ResidualError:
    """The error for a name that isn't there: it lists the nearest known names, or all where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    form, colon, rest = name.partition(":")
    if colon:  # as in "foldr:pictures"
        forms = {each.partition(":")[0] for each in known if ":" in each}
        near = [f"{each}:{rest}" for each in difflib.get_close_matches(form, forms, n=2, cutoff=0.5)] or near
    every = f"Known: {', '.join(known)}." if known else "There is none."
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else every
    return ResidualError(f"Unknown {kind} {name!r}. {hint}")


def told_apart(names: Sequence[str]) -> list[str]:
    """Names as keys: one that several things have gets the number of each.

    Example:
        >>> told_apart(["crane", "kite", "crane"])
        ['crane (0)', 'kite', 'crane (2)']
    """
    count = Counter(names)
    return [f"{name} ({k})" if count[name] > 1 else name for k, name in enumerate(names)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: of whatever failed for it, nothing else is known.

    Where torch has no class for it, it says so in a `RuntimeError` that only its text tells from others.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's
        return True
    signs = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
