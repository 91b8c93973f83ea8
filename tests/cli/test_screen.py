"""How values look, and the progress bar."""

from __future__ import annotations

import io
import json
import time
from contextlib import redirect_stderr, redirect_stdout

import click
import pytest

from ckptstore.cli import progress, screen
from ckptstore.cli.messages import be_quiet
from ckptstore.cli.progress import Bar
from ckptstore.progress import Progress


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (43_200_000, "43.2 MB"),
        (999_400, "999 kB"),
        (999_600, "1 MB"),
        (2 * 10**12, "2 TB"),
        (5 * 10**18, "5,000 PB"),
    ],
)
def test_sizes_are_in_powers_of_1000(n: int, text: str) -> None:
    assert screen.size(n) == text


@pytest.mark.parametrize(
    ("created", "shown"),
    [
        ("2026-05-04T13:37:00Z", "2026-05-04 13:37:00 UTC"),
        ("2026-05-04T13:37:00.123456+00:00", "2026-05-04 13:37:00 UTC"),
        ("some day", "some day"),
    ],
)
def test_times_are_shown_to_the_second(created: str, shown: str) -> None:
    assert screen.when(created) == shown


def test_a_table_is_aligned_and_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    long = "n" * 30

    lines = screen.table(
        [("a", "1", "x"), (long, "22", "y"), ("宽", "3", "")], right=frozenset({1})
    )

    assert lines == ["  a    1  x", f"  {long}", "      22  y", "  宽   3"]


@pytest.mark.parametrize("columns", [72, 80, 120])
def test_columns_use_the_width_and_lose_nothing(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    pairs = [(f"name_{i}", str(i)) for i in range(13)]

    lines = screen.columns(pairs)

    assert max(map(len, lines)) <= columns
    assert len(lines) < 13
    words = " ".join(lines).split()
    assert sorted(words[::2]) == sorted(name for name, _ in pairs)
    assert screen.columns([]) == []


def test_control_characters_become_their_escapes() -> None:
    assert screen.clean("a\x1b[31m\n\u202e\ud800é") == "a\\x1b[31m\\n\\u202e\\ud800é"


def test_what_json_lacks_becomes_text() -> None:
    value = {1: float("nan"), "path": (1, {2}), "ok": [None, True, 1.5], "odd": 1j}

    assert screen.plain(value) == {
        "1": "nan",
        "path": [1, [2]],
        "ok": [None, True, 1.5],
        "odd": "1j",
    }


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setenv("COLUMNS", "80")


class Clock:
    """Tells a time that moves on by some seconds whenever it is asked."""

    def __init__(self, step: float) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def shown(
    stream: io.StringIO, *, quiet: bool = False, events: int = 1, step: float | None = None
) -> str:
    """Return what is drawn on a stream in the place of stderr, for the first half of a copy.

    Args:
        stream: for what is drawn.
        quiet: as with ``--quiet``.
        events: how many there are.
        step: seconds between two of them; those that pass by default.
    """
    with click.Context(click.Command("sync")) as context, redirect_stderr(stream):
        if quiet:
            be_quiet(context)
        with Bar(time.monotonic if step is None else Clock(step)) as bar:
            for number in range(1, events + 1):
                bar(Progress("copy", "model.pt", 500 * number // events, 1000))
    return stream.getvalue()


def test_the_bar_shows_how_far_it_is_and_leaves_a_clean_line() -> None:
    _, drawn, cleared, end = shown(Terminal()).split("\r")

    assert drawn.startswith("copy model.pt [########--------]  50%  500 B of 1 kB")
    assert len(drawn) == 79
    assert cleared.strip() == end == ""


def test_the_bar_shows_how_fast_it_is_and_how_long_it_takes() -> None:
    *_, drawn, _, _ = shown(Terminal(), events=25, step=1.0).split("\r")

    # 20 bytes a second, and 500 are left.
    assert drawn.rstrip().endswith(" 50%  500 B of 1 kB  20 B/s  25 s left")


@pytest.mark.parametrize("columns", [72, 80, 120])
def test_the_bar_stays_on_one_line(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))

    drawn = shown(Terminal(), events=25, step=1.0).split("\r")

    assert max(map(len, drawn)) == columns - 1


def test_a_copy_that_stands_still_says_so() -> None:
    with click.Context(click.Command("sync")), redirect_stderr(Terminal()) as stream:
        bar = Bar(Clock(3.0))
        for _ in range(9):
            bar(Progress("copy", "model.pt", 500, 1000))

    assert stream.getvalue().rstrip().endswith("500 B of 1 kB  stalled")


def test_without_a_terminal_a_plain_line_comes_every_ten_seconds() -> None:
    lines = shown(io.StringIO(), events=25, step=1.0).splitlines()

    assert lines == [
        "copy model.pt: 20%, 200 B of 1 kB, 20 B/s, 40 s left",
        "copy model.pt: 40%, 400 B of 1 kB, 20 B/s, 30 s left",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (185, "3:05"), (7384, "2:03:04")]
)
def test_times_are_for_people(seconds: float, text: str) -> None:
    assert progress._duration(seconds) == text


def test_the_bar_waits_before_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 60.0)

    assert shown(Terminal()) == ""


def test_the_bar_is_silent_where_quiet_was_asked_for() -> None:
    assert shown(Terminal(), quiet=True) == ""


def test_what_is_soon_done_prints_no_line_where_stderr_is_no_terminal() -> None:
    assert shown(io.StringIO()) == ""
    assert shown(io.StringIO(), quiet=True, events=25, step=1.0) == ""


def test_the_bar_does_not_draw_more_often_than_a_person_sees() -> None:
    start = time.monotonic()
    text = shown(Terminal(), events=10_000)

    assert text.count("copy model.pt") <= 1 + (time.monotonic() - start) / 0.1


def test_printed_json_commands_no_terminal_and_is_the_same_document() -> None:
    document = {"\x9b2J": ["\u202e", "\x7f", "\u2028", "\ue000", "\ud800", "è 日本 \U0001f600"]}
    raw = io.BytesIO()

    with redirect_stdout(io.TextIOWrapper(raw, "utf-8", write_through=True)):
        screen.print_json(document)

    text = raw.getvalue().decode("utf-8")
    assert not [char for char in text if not char.isprintable() and char != "\n"]
    assert "è 日本 \U0001f600" in text
    assert json.loads(text) == document
