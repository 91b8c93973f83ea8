"""The documentation is complete: every name, command, guarantee and page is in it.

That every hook is, `tests/plugins/test_docs_plugins.py` checks.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import click
import pytest

import ckptstore
from ckptstore import errors
from ckptstore.cli import main as ckptstore_command
from gpt.__main__ import main as gpt_command

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *DOCS,
    *sorted((ROOT / "plugins").glob("*/README.md")),
]
_LINK = re.compile(r"(?<!!)\[[^]]+\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def read(*names: str) -> str:
    return "\n".join((ROOT / name).read_text("utf-8") for name in names)


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text("utf-8"))


def links(page: Path) -> list[str]:
    return [link for link in _LINK.findall(prose(page)) if "://" not in link]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(group: click.Group) -> dict[str, click.Command]:
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_reached_from_the_readme():
    reached: set[Path] = set()
    following = {ROOT / "README.md"}
    while following:
        page = following.pop()
        reached.add(page)
        linked = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        following |= {other for other in linked if other in PAGES} - reached

    assert set(DOCS) <= reached


@pytest.mark.parametrize("name", ckptstore.__all__)
def test_every_public_name_is_documented(name):
    assert re.search(rf"\b{name}\b", read("README.md", *(str(page) for page in DOCS)))
    assert inspect.getdoc(getattr(ckptstore, name))


@pytest.mark.parametrize("name", sorted(commands(ckptstore_command)))
def test_every_command_is_documented_and_has_help(name):
    command = commands(ckptstore_command)[name]

    assert f"## {name}\n" in read("docs/commands.md")
    assert f"ckptstore {name}" in read("docs/commands.md")
    assert command.help


@pytest.mark.parametrize("name", sorted(commands(ckptstore_command)))
def test_every_option_of_a_command_is_documented(name):
    text = read("docs/commands.md")
    options = [o for o in commands(ckptstore_command)[name].params if isinstance(o, click.Option)]

    for option in options:
        assert any(flag in text for flag in (*option.opts, *option.secondary_opts)), option.opts


@pytest.mark.parametrize("name", sorted(commands(gpt_command)))
def test_every_command_of_gpt_is_documented_and_has_help(name):
    assert f"gpt {name}" in read("README.md")
    assert commands(gpt_command)[name].help


def test_every_guarantee_is_explained():
    titles = re.findall(r"^## (G\d+) ", read("docs/guarantees.md"), re.MULTILINE)

    assert titles == [f"G{number}" for number in range(1, 11)]


def test_every_test_that_the_guarantees_name_is_in_the_file_that_they_name():
    page = read("docs/guarantees.md")
    text = ""

    named = re.findall(r"`(tests/[\w/]+\.py|test_\w+)`", page)
    assert len(named) > 40
    for name in named:
        if name.endswith(".py"):
            text = read(name)
        else:
            assert f"def {name}(" in text, name


def test_every_dependency_is_explained():
    text = read("docs/dependencies.md")
    section = re.search(r"^dependencies = \[(.*?)^\]", read("pyproject.toml"), re.M | re.S)
    assert section is not None

    for name in re.findall(r'"([\w-]+)', section[1]):
        assert f"`{name}`" in text


@pytest.mark.parametrize("field", ["to_json", "_dump_file"])
def test_every_field_of_the_manifest_is_described(field):
    manifest = importlib.import_module("ckptstore.manifest")
    source = inspect.getsource(getattr(manifest.Manifest, field, None) or getattr(manifest, field))
    text = read("docs/format.md")

    for name in re.findall(r'^\s+"(\w+)":', source, re.MULTILINE):
        assert f"`{name}`" in text, name


def test_every_error_has_its_exit_code_in_the_documentation():
    codes = {getattr(errors, name).exit_code for name in errors.__all__}

    for code in codes:
        assert f"| {code} |" in read("docs/commands.md")
