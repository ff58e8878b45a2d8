"""Whether JSON that others wrote is of the form that is expected, before anything is done with it."""

from __future__ import annotations

from typing import Any


class FormError(ValueError):
    """What isn't as expected, in a few words."""


def check_form(value: object, form: Any, what: str) -> None:
    """Refuse JSON of another form.

    Args:
        value: as `json.loads` gives it.
        form: a type, or a union of types; `[form]`, a list of such; `{name: form}`, an object with at least
            these fields; `{str: form}`, an object with any fields of one form.
        what: names the value.

    Raises:
        FormError: it is of another; names the part.
    """
    if isinstance(form, dict):
        if not isinstance(value, dict):
            raise FormError(f"{what} isn't an object")
        for name, part in form.items() if str not in form else ((name, form[str]) for name in value):
            if name not in value:
                raise FormError(f"{what} has no {name!r}")
            check_form(value[name], part, f"{what}, {name[:40]!r}")
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise FormError(f"{what} isn't a list")
        for each in value:
            check_form(each, form[0], what)
    elif not isinstance(value, form) or (isinstance(value, bool) and form is not bool):
        raise FormError(f"{what} is of another type")


def check_range(value: int, least: int, most: int, what: str) -> None:
    """Refuse a whole number outside of `least` to `most`.

    Raises:
        FormError: it is.
    """
    if not least <= value <= most:
        raise FormError(f"{what} isn't from {least} to {most:,}")
