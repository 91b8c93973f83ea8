"""Every example of README and docs runs as it stands there.

A ``python`` fence goes on where the one before it in the same file ended. The ``$`` lines of the
``console`` fences of a file run one after another in one folder, and have to end with exit code 0.
Both find `checkpoints/dante` in their folder, and an empty bucket `s3://bucket`. What is only to
be looked at (installing, other machines) is in ``sh`` and ``text`` fences. ``pip install`` and
``pytest`` are not run either: what they install is installed, and
``tests/plugins/test_tutorial.py`` runs its tests.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RUNNABLE = ("python", "console")
_ELSEWHERE = ("pip install", "pytest ")
_SHOWN = ("sh", "text", "toml", "json")


def fences(page: Path, language: str) -> list[re.Match[str]]:
    return [found for found in _FENCE.finditer(page.read_text("utf-8")) if found[1] == language]


def pages_with(language: str) -> list[object]:
    return [
        pytest.param(page, id=page.relative_to(ROOT).as_posix())
        for page in PAGES
        if fences(page, language)
    ]


def script_of(page: Path) -> str:
    """Return a page's Python, on the lines where it stands in the page."""
    text = page.read_text("utf-8")
    lines = [""] * text.count("\n")
    for found in fences(page, "python"):
        first = text.count("\n", 0, found.start(2))
        code = found[2].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines)


def commands_of(page: Path) -> list[str]:
    """Return a page's commands; a line that ends in a backslash goes on in the next."""
    blocks = [found[2].replace("\\\n", " ") for found in fences(page, "console")]
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_fence_says_whether_it_runs(page):
    languages = {found[1] for found in _FENCE.finditer(page.read_text("utf-8"))}

    assert languages <= {*_RUNNABLE, *_SHOWN}


@pytest.mark.parametrize("page", pages_with("python"))
def test_the_python_of_a_page_runs(page, place, python, tmp_path):
    script = tmp_path / page.name
    script.write_text(script_of(page), "utf-8")

    done = place.run(python, str(script))

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", pages_with("console"))
def test_the_commands_of_a_page_run(page, place):
    commands = [command for command in commands_of(page) if not command.startswith(_ELSEWHERE)]
    assert commands

    for command in commands:
        done = place.run("sh", "-c", command)
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        assert "Traceback" not in done.stdout, f"{command}\n{done.stdout}"
