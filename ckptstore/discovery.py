"""Finds plugins: the built-ins, and the entry points of the group ``ckptstore``.

Rules of this file:

1. The built-ins come through the same two hooks as everybody else, and come first.
2. A plugin that does not import, whose hook raises, or which returns something else than classes
   of the right kind is logged as a warning and left out; it stops nobody.
3. A hook that does not exist is a fault: `ckptstore.plugins` raises it as an error.
4. What the environment variables leave out is not even imported.
"""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import inspect
import logging
import os
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Literal, TypeVar

import pluggy

import ckptstore.formats
import ckptstore.tokenizers
from ckptstore import hookspecs
from ckptstore.formats.base import Format
from ckptstore.tokenizers.base import Tokenizer

__all__ = ["BUILT_IN", "GROUP", "Plugin", "PluginInfo", "find", "remedy"]

GROUP = "ckptstore"
BUILT_IN = "ckptstore"
CHOOSE = "CKPTSTORE_PLUGINS"
LEAVE_OUT = "CKPTSTORE_DISABLE_PLUGINS"

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class PluginInfo:
    """One plugin, for people.

    Attributes:
        name: of its entry point.
        distribution: the package that brings it; empty where its metadata does not say.
        version: of that package.
        module: what the entry point names.
        formats: the names of the formats that it adds.
        tokenizers: the tokenizer kinds that it adds.
        status: ``active``; ``failed``, and `error` says why; ``off``: an environment variable
            leaves it out.
        error: what is wrong, or None.
        writable: those of its formats that are written too, and not only read.
        off_by: where it is off, the environment variable that leaves it out, with its value.
    """

    name: str
    distribution: str
    version: str
    module: str
    formats: tuple[str, ...] = ()
    tokenizers: tuple[str, ...] = ()
    status: Literal["active", "failed", "off"] = "active"
    error: str | None = None
    writable: tuple[str, ...] = ()
    off_by: str | None = None

    def __str__(self) -> str:
        package = f"{self.distribution or 'no package'} {self.version}".strip()
        return f"{self.name!r} ({package}, module {self.module})"


@dataclass(frozen=True)
class Plugin:
    """One plugin and what it adds; `fault` is what may not pass with a warning."""

    info: PluginInfo
    formats: Mapping[str, Format] = field(default_factory=dict)
    kinds: Mapping[str, type[Tokenizer]] = field(default_factory=dict)
    fault: str | None = None


class _LeftOutError(Exception):
    """Why a plugin is left out; a fault where that may not pass with a warning."""

    fault = False


class _UnknownHookError(_LeftOutError):
    fault = True


def find() -> tuple[Plugin, ...]:
    """Import every chosen plugin and ask its hooks; the built-ins come first."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    return tuple(_take(manager, info, load) for info, load in _candidates())


def remedy(info: PluginInfo) -> str:
    """Return what to do about a faulty plugin."""
    if info.distribution == BUILT_IN:
        return "install ckptstore again"
    return f"correct it, or leave it out with {LEAVE_OUT}={info.distribution or info.name}"


# -- which there are ---------------------------------------------------------------------


def _candidates() -> Iterator[tuple[PluginInfo, Callable[[], object]]]:
    version = _version_of_ckptstore()
    for module in (ckptstore.formats, ckptstore.tokenizers):
        name = module.__name__.rpartition(".")[2]
        yield (
            PluginInfo(name, BUILT_IN, version, module.__name__),
            functools.partial(_itself, module),
        )
    points = importlib.metadata.entry_points(group=GROUP)
    infos = [_info(point) for point in points]
    off_by = _switch(infos)
    # The order of folders on sys.path is nobody's intention; the names' order is the same
    # everywhere.
    pairs = sorted(zip(infos, points, strict=True), key=lambda pair: _labels(pair[0]))
    for info, point in pairs:
        variable = off_by(info)
        if variable is not None:
            info = replace(info, status="off", off_by=variable)
        yield info, point.load


def _info(point: importlib.metadata.EntryPoint) -> PluginInfo:
    # A package's own metadata may be incomplete; that is no reason to stop others.
    metadata = point.dist.metadata if point.dist else None

    def said(field: str) -> str:
        return str(metadata[field]) if metadata is not None and field in metadata else ""

    return PluginInfo(point.name, said("Name"), said("Version"), point.value)


def _itself(module: ModuleType) -> object:
    return module


def _version_of_ckptstore() -> str:
    try:
        return importlib.metadata.version("ckptstore")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return ""


def _switch(infos: list[PluginInfo]) -> Callable[[PluginInfo], str | None]:
    """Read the two environment variables; a plugin goes by its entry point or its package.

    Returns:
        What says of a plugin which of the two leaves it out, as it is set; None for neither.
    """
    choose = _names_in(CHOOSE)
    leave_out = _names_in(LEAVE_OUT)
    known = {label for info in infos for label in _labels(info)}
    for variable, names in ((CHOOSE, choose - {"none"}), (LEAVE_OUT, leave_out)):
        for name in sorted(names - known):
            _log.warning("%s names %r, and no installed plugin is called that", variable, name)
    said = {name: f"{name}={os.environ.get(name, '')}" for name in (CHOOSE, LEAVE_OUT)}

    def off_by(info: PluginInfo) -> str | None:
        labels = set(_labels(info))
        if choose and not choose & labels:
            return said[CHOOSE]
        return said[LEAVE_OUT] if leave_out & labels else None

    return off_by


def _names_in(variable: str) -> set[str]:
    return {_normal(name) for name in os.environ.get(variable, "").split(",") if name.strip()}


def _labels(info: PluginInfo) -> tuple[str, str]:
    return _normal(info.distribution), _normal(info.name)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


# -- what they add -----------------------------------------------------------------------


def _take(manager: pluggy.PluginManager, info: PluginInfo, load: Callable[[], object]) -> Plugin:
    if info.status == "off":
        return Plugin(info)
    key = f"{info.distribution}:{info.name}"
    try:
        _register(manager, key, _call(load, "it does not import"))
        formats = _answers(manager, key, "ckptstore_formats", _checked_format)
        kinds = _answers(manager, key, "ckptstore_tokenizers", _checked_kind)
    except _LeftOutError as error:
        message = f"the plugin {info} is left out: {error}; {remedy(info)}"
        _log.debug("the plugin %s is left out", info, exc_info=error)
        # Without a built-in nothing would be as documented: no mere warning either.
        fault = error.fault or info.distribution == BUILT_IN
        if not fault:
            _log.warning("%s", message)
        failed = replace(info, status="failed", error=str(error))
        return Plugin(failed, fault=message if fault else None)
    info = replace(
        info,
        formats=tuple(formats),
        tokenizers=tuple(kinds),
        writable=tuple(name for name, format in formats.items() if format.writable),
    )
    return Plugin(info, formats=formats, kinds=kinds)


def _call(function: Callable[[], _T], what: str) -> _T:
    """Call into a plugin; whatever comes out of it leaves out that plugin and nothing else."""
    try:
        return function()
    except (Exception, SystemExit) as error:
        message = " ".join(str(error).split())  # one line, whatever the plugin says
        raise _LeftOutError(f"{what}: {type(error).__name__}: {message}") from error


def _register(manager: pluggy.PluginManager, key: str, plugin: object) -> None:
    if manager.get_name(plugin) is not None:
        raise _LeftOutError(f"{manager.get_name(plugin)} has registered the same object already")
    try:
        _call(lambda: manager.register(plugin, name=key), "its hooks do not fit")
        _check_hooks(manager, plugin)
    except _LeftOutError:
        if manager.has_plugin(key):
            manager.unregister(name=key)
        raise


def _check_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    callers = manager.get_hookcallers(plugin) or []
    if not callers:
        raise _LeftOutError(
            "it implements neither ckptstore_formats nor ckptstore_tokenizers; "
            "mark its functions with @ckptstore.hookimpl"
        )
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = [caller.name for caller in callers if not caller.has_spec()]
        raise _UnknownHookError(_unknown(unknown)) from error


def _unknown(names: list[str]) -> str:
    there = [name for name in vars(hookspecs) if name.startswith(f"{GROUP}_")]
    told = []
    for name in names:
        near = difflib.get_close_matches(name, there, n=1)
        told.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    return f"it implements {', '.join(told)}, but the hooks are {' and '.join(there)}"


def _answers(
    manager: pluggy.PluginManager,
    key: str,
    hook: str,
    check: Callable[[object, str], tuple[str, _T]],
) -> dict[str, _T]:
    """Ask one plugin's hook, apart from all others, and check each class that it returns."""
    things: dict[str, _T] = {}
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        if implementation.plugin_name != key:
            continue
        answer = _call(implementation.function, f"{hook} raised")
        if not isinstance(answer, (list, tuple)):
            raise _LeftOutError(f"{hook} returned a {type(answer).__name__}, not a list of classes")
        for value in answer:
            name, thing = check(value, hook)
            if name in things:
                raise _LeftOutError(f"{hook} returned two classes called {name!r}")
            things[name] = thing
    return things


def _checked_format(value: object, hook: str) -> tuple[str, Format]:
    if not (isinstance(value, type) and issubclass(value, Format)):
        raise _wrong(value, hook, "ckptstore.formats.base.Format")
    name = _checked_name(value, "name")
    return name, _call(value, f"the format {name!r} cannot be made")


def _checked_kind(value: object, hook: str) -> tuple[str, type[Tokenizer]]:
    if not (isinstance(value, type) and issubclass(value, Tokenizer)):
        raise _wrong(value, hook, "ckptstore.tokenizers.base.Tokenizer")
    kind = _checked_name(value, "kind")
    if inspect.isabstract(value):
        missing = ", ".join(sorted(value.__abstractmethods__))
        raise _LeftOutError(f"the tokenizer kind {kind!r} does not define {missing}")
    return kind, value


def _wrong(value: object, hook: str, base: str) -> _LeftOutError:
    return _LeftOutError(f"{hook} returned {reprlib.repr(value)}, not a subclass of {base}")


def _checked_name(cls: type, attribute: str) -> str:
    name = getattr(cls, attribute, None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _LeftOutError(
            f"the {attribute} of {cls.__qualname__} is {name!r}, "
            "not letters and digits with . _ + - between them"
        )
    return name
