"""The pictures in the documentation show what the commands print."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from tests.docs.places import ROOT, environ
from tests.docs.screens import FOLDER, SCREENS, first_words, prepare, printed, shown_in

STILL = [screen for screen in SCREENS if screen.frame is None]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screens")
    prepare(folder, environ(folder, {}), large=False)
    return folder


@pytest.mark.parametrize("screen", STILL, ids=lambda screen: screen.name)
def test_a_picture_shows_what_its_command_prints(screen, prepared):
    shown = first_words(shown_in(FOLDER / f"{screen.name}.svg"))

    now = first_words(printed(screen.command, prepared, environ(prepared, {})))

    cut = shown.index("⋮") if "⋮" in shown else len(shown)
    assert shown[:cut] == now[:cut]
    assert shown[cut + 1 :] == now[len(now) - len(shown) + cut + 1 :]


@pytest.mark.parametrize("picture", sorted(FOLDER.glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_is_whole_and_is_shown_somewhere(picture):
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert any(f"screens/{picture.name}" in page.read_text("utf-8") for page in pages)
