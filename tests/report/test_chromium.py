"""A real browser opens the page: it fits, it paints, it runs nothing and asks for nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ckptstore.report import gather, html_of

from .chromium import Chromium, Page
from .conftest import save_dante, save_later
from .png import pixels
from .test_page import hostile

SIZES = [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")]

TEXTS = ["h1", ".where", ".tiles dt", ".panel span", "nav a", ".note", ".facts th", "small"]
TEXTS += [".axes > span", ".heat td[style]", ".heat td.deep", ".ends span", ".tile", ".frame > b"]

# Whatever is wider than the window, and in no box of its own that scrolls or cuts off.
TOO_WIDE = """
[...document.body.querySelectorAll('*')]
  .filter(e => !e.closest('.scroll, .treemap') && e.getBoundingClientRect().right > innerWidth + 1)
  .filter(e => getComputedStyle(e.parentElement).overflowX === 'visible')
  .map(e => e.outerHTML.slice(0, 80))
"""
BOXES = """
(s => [...document.querySelectorAll(s)].map(e => e.getBoundingClientRect())
  .map(r => [r.x, r.y, r.width, r.height]))
"""
CUT_OFF = """
[...document.querySelectorAll('.treemap b, .treemap span')]
  .filter(e => getComputedStyle(e).display !== 'none')
  .filter(e => e.scrollWidth > e.clientWidth + 1 ||
    e.getBoundingClientRect().bottom > e.parentElement.getBoundingClientRect().bottom + 1)
  .map(e => e.parentElement.title)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the URL of a report with all there is in it."""
    folder = tmp_path_factory.mktemp("report")
    found = gather(str(save_dante(folder / "dante")), str(save_later(folder / "later")))
    (folder / "report.html").write_text(html_of(found), "utf-8")
    return (folder / "report.html").as_uri()


def boxes(page: Page, selector: str) -> list[Any]:
    return page.look(f"{BOXES}({selector!r})")


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_the_page_fits_and_is_left_alone(
    browser: Chromium, written: str, width: int, scheme: str
) -> None:
    page = browser.open(written, width=width, scheme=scheme)

    assert page.look("document.documentElement.scrollWidth") == width
    assert page.look(TOO_WIDE) == []
    assert page.requests == [written]
    assert page.complaints == []


def test_what_does_not_fit_would_be_seen(browser: Chromium, written: str) -> None:
    page = browser.open(written, width=360)

    page.look("document.querySelector('h2').style.width = '500px'")

    assert page.look("document.documentElement.scrollWidth") > 360
    assert "<h2" in page.look(TOO_WIDE)[0]


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_it_is_painted(browser: Chromium, written: str, width: int, scheme: str) -> None:
    page = browser.open(written, width=width, scheme=scheme)

    found = pixels(page.picture(scale=0.125))

    light = sum(map(sum, found)) / len(found) / 3
    assert len(set(found)) > 100
    assert light > 200 if scheme == "light" else light < 60


@pytest.mark.parametrize("width", [1280, 360])
def test_every_figure_has_room(browser: Chromium, written: str, width: int) -> None:
    page = browser.open(written, width=width)

    least = {".treemap": 250, ".plot svg": 120, "details[open] .card svg": 40, ".heat td": 20}
    for selector, size in least.items():
        found = boxes(page, selector)
        assert found, selector
        assert all(min(wide, high) >= size for _, _, wide, high in found), selector


def test_tiles_cover_the_treemap(browser: Chromium, written: str) -> None:
    page = browser.open(written)

    (whole,) = boxes(page, ".treemap")
    tiles = boxes(page, ".tile")

    assert sum(wide * high for _, _, wide, high in tiles) > 0.85 * whole[2] * whole[3]
    assert all(x >= whole[0] - 1 and x + wide <= whole[0] + whole[2] + 1 for x, _, wide, _ in tiles)


@pytest.mark.parametrize("width", [360, 500, 700, 900, 1280])
def test_labels_are_shown_where_they_fit(browser: Chromium, written: str, width: int) -> None:
    page = browser.open(written, width=width)

    shown = page.look(
        "[...document.querySelectorAll('.tile b')]"
        ".filter(e => getComputedStyle(e).display !== 'none').length"
    )
    assert page.look(CUT_OFF) == []
    assert shown > 3 or width < 900


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser: Chromium, written: str, scheme: str) -> None:
    page = browser.open(written, scheme=scheme)

    found = {selector: contrast(page, selector) for selector in TEXTS}

    assert {selector: ratio for selector, ratio in found.items() if ratio < 4.5} == {}


def contrast(page: Page, selector: str) -> float:
    """Return the contrast of a text and what is behind it, as WCAG 2 computes it."""
    colours = page.look(
        f"(() => {{ let e = document.querySelector({selector!r});"
        "const found = [getComputedStyle(e).color];"
        "for (; e; e = e.parentElement) found.push(getComputedStyle(e).backgroundColor);"
        "return found })()"
    )
    text, *behind = map(colour, colours)
    under = (0.0, 0.0, 0.0)
    for red, green, blue, alpha in reversed(behind):
        over = (red, green, blue)
        under = tuple(alpha * a + (1 - alpha) * b for a, b in zip(over, under, strict=True))  # type: ignore[assignment]
    low, high = sorted([luminance(text[:3]), luminance(under)])
    return (high + 0.05) / (low + 0.05)


def colour(text: str) -> tuple[float, float, float, float]:
    numbers = [float(number) for number in re.findall(r"[\d.]+(?:e-?\d+)?", text.partition("(")[2])]
    alpha = numbers[3] if len(numbers) > 3 else 1.0
    if text.startswith("color("):
        return (*(255 * value for value in numbers[:3]), alpha)  # type: ignore[return-value]
    return (*numbers[:3], alpha)  # type: ignore[return-value]


def luminance(rgb: Any) -> float:
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_a_printed_page_is_light_and_has_no_links(browser: Chromium, written: str) -> None:
    page = browser.open(written, scheme="dark")
    page.ask("Emulation.setEmulatedMedia", media="print")

    assert page.look("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.look("getComputedStyle(document.body.parentElement).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert contrast(page, "h1") > 10


def test_a_hostile_checkpoint_runs_nothing(browser: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(html_of(gather(str(hostile(tmp_path / "x")))), "utf-8")

    page = browser.open(path.as_uri(), width=360)

    assert page.look("document.scripts.length + document.images.length") == 0
    assert page.look("document.documentElement.scrollWidth") == 360
    assert page.look("document.title").startswith("x: checkpoint report")
    assert page.requests == [path.as_uri()]
    assert page.complaints == []


def test_the_policy_holds_even_where_markup_got_in(browser: Chromium, written: str) -> None:
    page = browser.open(written)

    # The page's own code cannot do this; a fault in the escaping would.
    page.look(
        "document.body.insertAdjacentHTML('beforeend',"
        '\'<img src="http://127.0.0.1:9/x.png" onerror="window.ran = 1">\')'
    )
    page.look("new Promise(resolve => setTimeout(resolve, 50))")

    assert page.look("window.ran === undefined")
    assert any("Content Security Policy" in said for said in page.complaints)
