"""docs/plugins.md: its packages are real, and everything that an author may use is in it.

That its packages build, install, work and go again, `test_tutorial.py` shows.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

import pytest

from ckptstore import hookspecs
from ckptstore import testing as kits
from ckptstore.formats.base import Contents, Files, Format, NewFiles, Reader
from ckptstore.tokenizers.base import Tokenizer
from tests.docs import tutorial
from tests.docs.places import ROOT

TEXT = tutorial.PAGE.read_text("utf-8")
PACKAGE = ROOT / "plugins" / "ckptstore-bytes"


def test_every_hook_has_a_heading_with_its_signature() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("ckptstore_")]
    assert len(hooks) == 2
    for name in hooks:
        signature = inspect.signature(getattr(hookspecs, name))
        assert f"### `{name}() -> {signature.return_annotation}`\n" in TEXT


# -- the tutorial -------------------------------------------------------------------------


def test_the_tutorial_builds_two_packages_of_three_files() -> None:
    assert sorted(tutorial.files()) == [
        "ckptstore-bytes/ckptstore_bytes.py",
        "ckptstore-bytes/pyproject.toml",
        "ckptstore-bytes/tests/test_bytes.py",
        "ckptstore-json/ckptstore_json.py",
        "ckptstore-json/pyproject.toml",
        "ckptstore-json/tests/test_json.py",
    ]


@pytest.mark.parametrize(
    ("name", "most"),
    [("ckptstore-bytes/ckptstore_bytes.py", 27), ("ckptstore-json/ckptstore_json.py", 66)],
)
def test_a_kind_has_some_twenty_lines_and_a_format_some_sixty(name: str, most: int) -> None:
    lines = [line for line in tutorial.files()[name].splitlines() if line.strip()]

    assert len(lines) <= most
    assert max(map(len, lines)) <= 100


def test_the_tutorials_kind_is_the_package_that_ships() -> None:
    files = tutorial.files()
    project = (PACKAGE / "pyproject.toml").read_text("utf-8")
    plain = re.sub(r'^(readme|license) = ".*"\n', "", project, flags=re.MULTILINE)
    assert files["ckptstore-bytes/pyproject.toml"] == plain
    shipped = (PACKAGE / "ckptstore_bytes.py").read_text("utf-8")
    assert bare(files["ckptstore-bytes/ckptstore_bytes.py"]) == bare(shipped)
    shipped = (PACKAGE / "tests" / "test_bytes.py").read_text("utf-8")
    assert files["ckptstore-bytes/tests/test_bytes.py"] == shipped


def bare(source: str) -> str:
    """Return a module without docstrings and types, and without imports for these."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    tree.body = [
        node
        for node in tree.body
        if not (
            isinstance(node, ast.ImportFrom)
            and node.module in ("__future__", "collections.abc", "typing")
        )
    ]
    return ast.unparse(tree)


# -- what an author may use ---------------------------------------------------------------


def members(cls: type) -> Iterator[str]:
    """Yield the public attributes of a class, and its methods as they are called."""
    names = {**vars(cls), **dict.fromkeys(inspect.get_annotations(cls))}
    for name in names:
        if name.startswith("_"):
            continue
        value = getattr(cls, name, None)
        if not inspect.isroutine(value):
            yield name
            continue
        parameters = [
            parameter.replace(annotation=inspect.Parameter.empty)
            for parameter in inspect.signature(value).parameters.values()
            if parameter.name != "self"
        ]
        signature = inspect.Signature(parameters)
        yield f"{name}{signature}".replace("'", '"')


def documented(cls: type) -> set[str]:
    """Return what stands in the first column of the tables about a class."""
    if cls is Tokenizer:
        section = TEXT[TEXT.index("### What a kind promises\n") :]
        section = section[: section.index("\n\n", section.index("|---"))]
    else:
        begin = TEXT.index(f"| `{cls.__name__}` |")
        section = TEXT[begin : TEXT.index("\n\n", begin)]
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize("cls", [Format, Reader, Files, NewFiles, Contents, Tokenizer])
def test_everything_that_an_author_may_use_is_documented(cls: type) -> None:
    assert set(members(cls)) - documented(cls) == set()


@pytest.mark.parametrize("cls", [Format, Reader, Files, NewFiles, Contents])
def test_nothing_is_documented_that_is_not_there(cls: type) -> None:
    assert documented(cls) - {cls.__name__} - set(members(cls)) == set()


@pytest.mark.parametrize("kit", [kits.FormatTests, kits.TokenizerTests])
def test_every_fixture_that_may_be_overridden_is_documented(kit: type) -> None:
    follow = {"tokenizer", "stored", "memory_location"}  # from the others, or from nothing
    fixtures = {
        name
        for base in kit.__mro__
        for name, value in vars(base).items()
        if type(value).__name__ == "FixtureFunctionDefinition"  # since pytest 8.4
        or hasattr(value, "_pytestfixturefunction")
    }
    assert follow & fixtures

    section = TEXT[TEXT.index("## The kits\n") : TEXT.index("### The fault kit\n")]
    assert fixtures - set(re.findall(r"`(\w+)`", section)) <= follow


def test_every_name_of_the_kits_is_documented() -> None:
    for name in kits.__all__:
        assert re.search(rf"\b{name}\b", TEXT), name


def test_every_environment_variable_is_documented() -> None:
    for variable in ("CKPTSTORE_PLUGINS=none", "CKPTSTORE_PLUGINS=a,b", "DISABLE_PLUGINS=a,b"):
        assert variable in TEXT
