"""What is public is there, once, in order, and says what it is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import ckptstore
import gpt

MODULES = sorted(
    info.name
    for package in (ckptstore, gpt)
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not info.name.endswith("__main__")
)


def exported(name: str) -> list[str]:
    return list(getattr(importlib.import_module(name), "__all__", ()))


@pytest.mark.parametrize("name", ckptstore.__all__)
def test_every_public_name_resolves(name):
    assert getattr(ckptstore, name) is not None
    assert name in dir(ckptstore)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ckptstore' has no attribute 'load'"):
        _ = ckptstore.load


def test_public_names_are_sorted():
    assert sorted(ckptstore.__all__) == ckptstore.__all__


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is(name):
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", [name for name in MODULES if exported(name)])
def test_every_exported_name_exists_and_is_documented(name):
    module = importlib.import_module(name)

    for member in exported(name):
        value = getattr(module, member)
        ours = getattr(value, "__module__", "").partition(".")[0] in ("ckptstore", "gpt")
        if ours and (inspect.isclass(value) or inspect.isfunction(value)):
            assert inspect.getdoc(value), f"{name}.{member}"


@pytest.mark.parametrize("name", ["ckptstore.Checkpoint", "ckptstore.Store", "ckptstore.Keep"])
def test_every_public_method_is_documented(name):
    cls = getattr(ckptstore, name.partition(".")[2])
    methods = [m for m in vars(cls) if not m.startswith("_")]

    assert [m for m in methods if callable(getattr(cls, m)) and not getattr(cls, m).__doc__] == []


def test_the_version_is_stated_once_and_everywhere_the_same():
    from importlib.metadata import version

    done = subprocess.run(
        [sys.executable, "-m", "ckptstore", "--version"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )

    assert version("ckptstore") == ckptstore.__version__
    assert done.stdout == f"ckptstore {ckptstore.__version__}\n"
