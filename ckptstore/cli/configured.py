"""Storage options by the beginning of a location: from a file, a variable, the command line.

Rules:

1. The command line wins over ``CKPTSTORE_STORAGE_OPTIONS``, and that over the file. Within one of
   them the longest prefix wins. Each key by itself; null takes a key away.
2. A prefix is a URL, and is compared by whole parts: ``s3://bucket/run`` is none of
   ``s3://bucket/runs``.
3. File and variable are not for secrets, and one that holds any is refused.
4. They are read when a URL is used, never for a path. A mistake in them is one of usage: exit code
   2, with file, line and key, and never with a value.

Only the command line reads them: the library takes what it is given.
"""

from __future__ import annotations

import configparser
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import click

__all__ = ["StorageOptions", "option_value"]

log = logging.getLogger(__name__)

_FILE = "CKPTSTORE_CONFIG"
_VARIABLE = "CKPTSTORE_STORAGE_OPTIONS"
_PREFIX = re.compile(r"[A-Za-z][\w+.-]+://")
_ALWAYS_TEXT = frozenset({"key", "secret", "token", "username", "password"})


@dataclass(frozen=True)
class _Option:
    value: Any
    where: str


@dataclass(frozen=True)
class _Section:
    """The options of one prefix."""

    parts: tuple[str, ...]
    options: Mapping[str, _Option]


@dataclass(frozen=True)
class StorageOptions:
    """What a command passes to the library as ``storage_options``, by location.

    Attributes:
        given: on the command line, for every location.
    """

    given: Mapping[str, Any] = field(default_factory=dict)

    def of(self, location: str) -> dict[str, Any]:
        """Return the options of a location.

        Raises:
            click.UsageError: the file or the variable has a mistake, or an option does not exist.
        """
        found: dict[str, _Option] = {}
        if _PREFIX.match(location):
            parts = _parts(location)
            for section in self._configured:
                if parts[: len(section.parts)] == section.parts:
                    found.update(section.options)
        found |= {key: _Option(value, "--storage-option") for key, value in self.given.items()}
        found = {key: option for key, option in found.items() if option.value is not None}
        _check_names(location, found)
        for key, option in found.items():
            log.debug("the storage option %s is from %s", key, option.where)
        return {key: option.value for key, option in found.items()}

    @cached_property
    def _configured(self) -> tuple[_Section, ...]:
        """What file and variable hold; what wins comes last."""
        file, variable = _of_file(), _of_variable()
        return (
            *sorted(file, key=lambda section: len(section.parts)),
            *sorted(variable, key=lambda section: len(section.parts)),
        )


def option_value(key: str, text: str) -> Any:
    """Return the value of an option that was written as text: JSON where it is, else itself."""
    if key in _ALWAYS_TEXT:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _of_variable() -> list[_Section]:
    text = os.environ.get(_VARIABLE)
    if not text:
        return []
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None  # What the parser says of it could quote it.
    if not isinstance(document, dict) or not all(isinstance(o, dict) for o in document.values()):
        raise click.UsageError(
            f"{_VARIABLE} is no JSON object of options by URL; write it like "
            '{"s3://bucket": {"endpoint_url": "http://localhost:9000"}}'
        )
    return [_section(prefix, options, _VARIABLE, {}) for prefix, options in document.items()]


def _of_file() -> list[_Section]:
    path, must_be_there = _path()
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except FileNotFoundError:
        if must_be_there:
            raise click.UsageError(f"{_FILE} names {path}, which does not exist") from None
        return []
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise click.UsageError(f"{path} cannot be read: {why}") from None
    parser = _parsed(path, text)
    sections = []
    for prefix in parser.sections():
        lines = _lines(text, prefix)
        options = {key: option_value(key, value) for key, value in parser.items(prefix)}
        sections.append(_section(prefix, options, path, lines))
    return sections


def _path() -> tuple[str, bool]:
    """Return where the file is, and whether somebody said so."""
    named = os.environ.get(_FILE)
    if named:
        return os.path.expanduser(named), True
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(folder):
        folder = os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(folder, "ckptstore", "config.ini"), False


def _parsed(path: str, text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(
        delimiters=("=",), interpolation=None, default_section="", empty_lines_in_values=False
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation says
    try:
        parser.read_string(text)
    except configparser.MissingSectionHeaderError as error:
        line, what = error.lineno, "stands before any [URL]"
    except configparser.DuplicateSectionError as error:
        line, what = error.lineno or 0, f"{_shown(str(error.section))} is there already"
    except configparser.DuplicateOptionError as error:
        what = f"{error.option!r} of {_shown(str(error.section))} is there already"
        line = error.lineno or 0
    except configparser.ParsingError as error:
        line, what = error.errors[0][0], "is neither [URL] nor KEY = VALUE"
    else:
        return parser
    raise click.UsageError(f"{path}, line {line}: {what}")


def _lines(text: str, prefix: str) -> dict[str, int]:
    """Return the lines of a section's keys; that of the section itself is that of the key ''."""
    found: dict[str, int] = {}
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip().startswith("["):
            inside = line.strip() == f"[{prefix}]"
            if inside:
                found[""] = number
        elif inside and "=" in line:
            found.setdefault(line.partition("=")[0].strip(), number)
    return found


def _section(
    prefix: str, options: Mapping[str, Any], origin: str, lines: Mapping[str, int]
) -> _Section:
    from ckptstore.storage.credentials import credential_in
    from ckptstore.storage.shown import without_secrets

    def where(key: str) -> str:
        line = lines.get(key) or lines.get("")
        return f"{origin}, line {line}" if line else origin

    shown = _shown(prefix)
    if not _PREFIX.match(prefix):
        raise click.UsageError(f"{where('')}: {shown} is no URL such as [s3://bucket/folder]")
    if without_secrets(prefix) != prefix:
        raise click.UsageError(
            f"{where('')}: {shown} holds a user, a password or a query; leave that out"
        )
    for key, value in options.items():
        secret = credential_in({key: value})
        if secret is not None:
            raise click.UsageError(
                f"{where(key)}: {secret!r} of {shown} is a secret or holds one, and this is no "
                f"place for secrets; {_instead(prefix, key)}"
            )
    return _Section(
        _parts(prefix), {key: _Option(value, where(key)) for key, value in options.items()}
    )


def _instead(prefix: str, key: str) -> str:
    protocol = _parts(prefix)[0]
    if protocol == "s3":
        return "use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile (profile = NAME)"
    variable = re.sub(r"\W", "_", f"FSSPEC_{protocol}_{key}").upper()
    return f"use what the storage's own library reads, or the variable {variable}"


def _shown(prefix: str) -> str:
    from ckptstore.storage.shown import without_secrets

    return f"[{without_secrets(prefix)}]"


def _parts(url: str) -> tuple[str, ...]:
    """Return protocol, bucket or host, and the folders of a URL."""
    from ckptstore.storage.shown import without_users

    protocol, _, rest = without_users(url).partition("://")
    protocol = protocol.lower()
    rest = rest.rstrip("/")
    return ("s3" if protocol == "s3a" else protocol, *(rest.split("/") if rest else ()))


def _check_names(location: str, options: Mapping[str, _Option]) -> None:
    """Refuse an option that is nearly one of S3's."""
    if not options or not re.match("s3a?://", location, re.IGNORECASE):
        return
    import difflib

    from ckptstore.storage.s3options import option_names

    known = option_names()
    for name, option in options.items():
        near = [] if name in known else difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        if near:
            raise click.UsageError(
                f"{option.where}: S3 has no option {name!r}; did you mean {near[0]!r}?"
            )
