"""The page of all help texts is what the commands say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.docs.cli import PAGE, page

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date():
    assert page() == PAGE.read_text("utf-8"), "write it with: make docs"


def test_the_page_has_every_command_once():
    text = page()

    for name in ("ckptstore", "ckptstore inspect", "ckptstore completion", "gpt", "gpt train"):
        assert text.count(f"# {name}\n") == 1


def test_the_page_is_the_same_on_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert page() == PAGE.read_text("utf-8")


def test_the_command_prints_the_page():
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.cli"], cwd=ROOT, capture_output=True, encoding="utf-8"
    )

    assert done.stdout == PAGE.read_text("utf-8"), done.stderr
