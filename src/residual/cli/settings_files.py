"""Settings are data: files in gin's syntax, read by gin's parser, and nothing of what gin itself would run.

A file can bind numbers, strings, lists, tuples, dicts, booleans and None to the settings of a command, and
name such a value once for several places (a macro). It can't import, include, refer to code or reach another
name.
"""

from __future__ import annotations

import difflib
import io
import tokenize
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gin.config_parser import (
    BindingStatement,
    BlockDeclaration,
    ConfigParser,
    ImportStatement,
    ParserDelegate,
)

from residual.errors import ResidualError, unknown_name
from residual.files import local_path, read_regular
from residual.settings import SettingError, checked, default_of, settings_of, taken

_MOST_BYTES = 2**15  # the paper's files are below 2**11
_DEEPEST = 20  # brackets in brackets
_MOST_STRINGS = 100  # beside each other, which are one
_MOST_ITEMS = 10_000  # of a value, with what its macros stand for
_PARAMS = 2**31  # the level of `--param`, above all files


@dataclass(frozen=True)
class _Macro:
    name: str


@dataclass(frozen=True)
class _Reference:
    name: str


class _Names(ParserDelegate):
    """What gin would look up stays a name."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> _Reference:
        return _Reference(scoped_configurable_name)

    def macro(self, macro_name: str) -> _Macro:
        return _Macro(macro_name)


@dataclass(frozen=True)
class _Source:
    """A text of settings, how messages call it, and which of several texts win over which."""

    name: str
    text: str
    hint: str
    level: int

    def refused(self, line: int, reason: str) -> ResidualError:
        """The error for a line that can't be used."""
        said = _short([*self.text.split("\n"), ""][line - 1].strip(), 80)
        where, why = f"{self.name}, line {line}, {said!r}", _short(reason, 320)
        end = "" if why.endswith((".", "?")) else "."
        return ResidualError(f"A setting can't be used: {where}: {why}{end}", self.hint)


@dataclass(frozen=True)
class Binding:
    """What a line of a text binds; a macro has no field."""

    source: _Source
    line: int
    kind: str
    field: str
    value: Any

    @property
    def name(self) -> str:
        """As it is written: "FitSettings.epochs"."""
        return f"{self.kind}.{self.field}" if self.field else self.kind

    @property
    def of_file(self) -> bool:
        """Whether it is a line of a file, which several commands may share."""
        return self.source.level != _PARAMS

    @property
    def place(self) -> str:
        """Where it stands: "'a.gin', line 3", or "--param"."""
        return f"{self.source.name}, line {self.line}" if self.of_file else "--param"

    def refused(self, reason: str) -> ResidualError:
        """The error for this line."""
        return self.source.refused(self.line, reason)


def read_bindings(
    files: Sequence[Path],
    params: Sequence[str],
    kinds: Mapping[str, type],
    hint: str,
    own: Collection[str] = (),
) -> list[Binding]:
    """What files and `name=value` bind to the fields of `kinds`, by their names; what comes later wins: of
    files the later, and `name=value` over all of them.

    Raises:
        ResidualError: a file that isn't there or is no text; or a line that is anything but a literal bound
            to a field that takes it, or a macro of a literal that is used; or two of one text that bind one
            field to different values. It is told with its place, and with `hint`.
    """
    sources = [_Source(repr(str(file)), _read(file), hint, level) for level, file in enumerate(files)]
    bindings = [each for source in sources for each in _bindings(source)]
    for number, param in enumerate(params, 1):
        source = _Source(f"--param {number}", _quoted(param), hint, _PARAMS)
        found = _bindings(source)
        if len(found) != 1:
            raise source.refused(1, "each --param binds one value")
        bindings += found
    _check_once(bindings)
    macros = {each.name: each.value for each in bindings if not each.field}
    used: set[str] = set()
    resolved = [_resolved(each, macros, used, kinds) for each in bindings if each.field]
    for each in bindings:
        if not each.field and each.name not in used:
            scoped = [name for name, kind in kinds.items() if each.name in settings_of(kind)]
            here = [name for name in scoped if name in own] or scoped
            could = "; ".join(_takes(name, kinds[name], each.name) for name in here[:3])
            raise each.refused(
                f"nothing uses %{each.name}; a setting has a dot in its name{could and ': '}{could}"
            )
    return resolved


def _takes(name: str, kind: type, field: str) -> str:
    return f"{name}.{field} takes {taken(kind, field)} (by default {default_of(kind, field)!r})"


def _check_once(bindings: Sequence[Binding]) -> None:
    """Refuse a name that one file, or `--param`, binds to two values: one of them would be of no effect."""
    seen: dict[tuple[int, str], Binding] = {}
    for each in bindings:
        first = seen.setdefault((each.source.level, each.name.removeprefix("residual.")), each)
        if repr(first.value) != repr(each.value):
            where = f"line {first.line}" if each.of_file else first.source.name
            raise each.refused(f"{each.name} is {_short(repr(first.value), 80)} in {where} already")


def _read(file: Path) -> str:
    """The text of a file.

    Raises:
        ResidualError: there is none, or it is no regular file, too large, or no text.
    """
    try:
        text = read_regular(local_path(file), _MOST_BYTES).decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError as error:
        raise ResidualError(f"There is no settings file {str(file)!r}.") from error
    except OSError as error:
        raise ResidualError(f"The settings file {str(file)!r} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ResidualError(
            f"The settings file {str(file)!r} is no text: its byte {error.start} isn't UTF-8."
        ) from error
    if "\0" in text:
        raise ResidualError(f"The settings file {str(file)!r} is no text: it holds a zero byte.")
    return text


def _bindings(source: _Source) -> list[Binding]:
    """All that a text binds, each value a literal or, but for macros, with names of macros in it."""
    found, line = [], 1
    try:
        _check_tokens(source)
        parser = ConfigParser(source.text, _Names())
        while (statement := parser.parse_statement()) is not None:
            line = statement.location.line_num
            if isinstance(statement, BlockDeclaration):
                continue  # what it holds comes by itself
            if not isinstance(statement, BindingStatement):
                what = "imported" if isinstance(statement, ImportStatement) else "included"
                raise source.refused(line, f"settings are data, and nothing is {what}")
            if statement.scope:
                raise source.refused(line, f"nothing uses the scope {statement.scope!r}")
            binding = Binding(source, line, statement.selector, statement.arg_name, statement.value)
            _check_literal(binding, binding.value)
            found.append(binding)
    except SyntaxError as error:
        reason = (error.msg or "").strip().split("\n")[-1].strip().rstrip(".")
        raise source.refused(error.lineno or line, reason) from error
    except tokenize.TokenError as error:
        raise source.refused(error.args[1][0], str(error.args[0])) from error
    except TypeError as error:  # a list as a key
        raise source.refused(line, f"a value after it can't be made ({error})") from error
    return found


def _check_tokens(source: _Source) -> None:
    """Refuse what would take gin's parser long, or what it would misread."""
    depth = strings = 0
    minus = False
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        line = token.start[0]
        if token.type in (tokenize.COMMENT, tokenize.NL):
            continue
        strings = strings + 1 if token.type == tokenize.STRING else 0
        depth += (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
        if depth > _DEEPEST:
            raise source.refused(line, f"more than {_DEEPEST} brackets in each other")
        if strings > _MOST_STRINGS:
            raise source.refused(line, f"more than {_MOST_STRINGS} strings beside each other")
        if minus and token.type != tokenize.NUMBER:  # gin would leave out the minus
            raise source.refused(line, "a minus stands before numbers only")
        minus = token.string == "-"


def _check_literal(binding: Binding, value: Any) -> None:
    """Refuse what is no literal, or no finite number that other programs can read."""
    if isinstance(value, list | tuple):
        for each in value:
            _check_literal(binding, each)
    elif isinstance(value, dict):
        for each in (*value.keys(), *value.values()):
            _check_literal(binding, each)
    elif isinstance(value, _Reference):
        raise binding.refused(f"settings are data, and @{value.name} would be code")
    elif isinstance(value, _Macro):
        if not binding.field:
            raise binding.refused(f"a macro stands for a literal, not for %{value.name}")
    elif isinstance(value, int | float):
        if not abs(value) < 2**64:
            raise binding.refused("a number is below 2**64")
    elif not isinstance(value, str | None):
        raise binding.refused(f"{type(value).__name__} is no kind of setting")


def _resolved(
    binding: Binding, macros: Mapping[str, Any], used: set[str], kinds: Mapping[str, type]
) -> Binding:
    """With the value as its field holds it, and what macros stand for; their names are added to `used`."""
    name = binding.kind.removeprefix("residual.")
    if name not in kinds:
        raise binding.refused(unknown_name("settings", name, kinds).message)
    if binding.field not in settings_of(kinds[name]):
        known = settings_of(kinds[name])
        near = difflib.get_close_matches(binding.field, known, 1, 0.5)
        takes = f" {_takes(name, kinds[name], near[0])}" if near else ""
        raise binding.refused(f"{unknown_name(f'setting of {name}', binding.field, known).message}{takes}")
    try:
        value = checked(kinds[name], binding.field, _value(binding, macros, used))
    except SettingError as error:
        raise SettingError(f"{error.message.removesuffix('.')} ({binding.place}).", error.hint) from error
    return replace(binding, kind=name, value=value)


def _value(binding: Binding, macros: Mapping[str, Any], used: set[str]) -> Any:
    """The value with what its macros stand for."""
    items = 0

    def resolve(value: Any) -> Any:
        nonlocal items
        items += 1
        if items > _MOST_ITEMS:
            raise binding.refused(f"its value has more than {_MOST_ITEMS:,} parts")
        if isinstance(value, _Macro):
            if value.name not in macros:
                raise binding.refused(unknown_name("macro", value.name, macros).message)
            used.add(value.name)
            return resolve(macros[value.name])
        if isinstance(value, dict):
            return {resolve(key): resolve(each) for key, each in value.items()}
        return type(value)(map(resolve, value)) if isinstance(value, list | tuple) else value

    try:
        return resolve(binding.value)
    except TypeError as error:
        raise binding.refused("a list or a dictionary is no key") from error


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _quoted(param: str) -> str:
    """`run.dataset=letters` without the quotes that a shell takes away."""
    name, equals, value = (part.strip() for part in param.partition("="))
    if not equals:
        raise ResidualError(f"--param takes name=value, got {param!r}.")
    word = bool(value) and not value[0].isdigit() and value[0] not in "'\"[({-+.@%"
    return f"{name} = {value!r}" if word and value not in ("True", "False", "None") else f"{name} = {value}"
