"""A plugin that has the classes that a test gives it, one after the other."""

from __future__ import annotations

from contextlib import contextmanager

from ckptstore import hookimpl, plugins

_given = {"formats": [], "tokenizers": []}


@hookimpl
def ckptstore_formats():
    return _given["formats"]


@hookimpl
def ckptstore_tokenizers():
    return _given["tokenizers"]


@contextmanager
def registered(*, formats=(), tokenizers=()):
    """Have these classes found, and no others of this plugin."""
    _given.update(formats=list(formats), tokenizers=list(tokenizers))
    plugins.reload()
    try:
        yield
    finally:
        _given.update(formats=[], tokenizers=[])
        plugins.reload()
