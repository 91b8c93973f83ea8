"""Pictures of the command line: ``python -m tests.docs.screens`` draws docs/screens anew.

Each is what a command prints in a real terminal of 80 columns, drawn as an SVG that follows the
reader's light or dark theme; its text stays text. The tests run the commands again, and hold the
pictures to what is printed now.
"""

from __future__ import annotations

import fcntl
import html
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from dataclasses import dataclass
from pathlib import Path

import torch

import ckptstore
from ckptstore.testing.servers import start_server
from tests.docs.places import ROOT, TRAIN
from tests.docs.places import environ as environ_of

__all__ = [
    "COLUMNS",
    "FOLDER",
    "SCREENS",
    "Screen",
    "first_words",
    "prepare",
    "printed",
    "shown_in",
]

FOLDER = ROOT / "docs" / "screens"
COLUMNS = 80

_WIDTH, _HEIGHT, _PAD = 8.4, 19, 18
_STYLE = """
    .page { fill: #ffffff; stroke: #d0d7de } text { fill: #1f2328 } .b { font-weight: 600 }
    .c31 { fill: #cf222e } .c32 { fill: #1a7f37 } .c33 { fill: #9a6700 } .c36 { fill: #0969da }
    .prompt { fill: #6e7781 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117; stroke: #30363d } text { fill: #e6edf3 }
      .c31 { fill: #ff7b72 } .c32 { fill: #3fb950 } .c33 { fill: #d29922 } .c36 { fill: #58a6ff }
      .prompt { fill: #8b949e }
    }
"""
_CODE = re.compile(r"\x1b\[([0-9;]*)m")
_CLASSES = {"1": "b"}


@dataclass(frozen=True)
class Screen:
    """A picture.

    Attributes:
        name: of its file.
        command: what is run, in a folder that `prepare` has filled.
        frame: of a progress bar, the share of the work at which it is drawn; None for the end.
        most: lines; of more those in the middle are left out.
    """

    name: str
    command: str
    frame: float | None = None
    most: int = 100


SCREENS = (
    Screen("inspect", "ckptstore inspect checkpoints/dante"),
    Screen("diff", "ckptstore diff --stats checkpoints/dante checkpoints/virgil"),
    Screen("convert", "ckptstore convert --report old/latest.pt converted", most=18),
    Screen("sync", "ckptstore sync checkpoints/large s3://bucket/large", frame=0.6),
)


def prepare(folder: Path, environ: dict[str, str], *, large: bool) -> None:
    """Fill a folder with what the commands are about.

    Args:
        folder: empty.
        environ: to run programs with.
        large: whether to make something whose copy takes its time.
    """
    subprocess.run(TRAIN.split(), cwd=folder, env=environ, check=True, stdout=subprocess.DEVNULL)
    dante = ckptstore.open(folder / "checkpoints" / "dante")
    model = dante.load_model()
    model["lm_head.weight"] *= 1.02
    model["lm_head.bias"] += 0.01
    ckptstore.save(
        folder / "checkpoints" / "virgil",
        model=model,
        config={**(dante.config or {}), "dropout": 0.2},
        tokenizer=dante.tokenizer_state,
        optimizer=dante.load_optimizer(),
        step=120,
        metrics={**dante.metrics, "val_loss": 2.75},
    )
    shutil.copytree(ROOT / "tests" / "fixtures" / "legacy_char", folder / "old")
    if large:
        model = {f"blocks.{n}.weight": torch.randn(4_000_000) for n in range(100)}
        ckptstore.save(folder / "checkpoints" / "large", model=model, step=12_000)


def printed(command: str, folder: Path, environ: dict[str, str], columns: int = COLUMNS) -> str:
    """Return what a command prints in a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environ = {**environ, "TERM": "xterm-256color"}
    with subprocess.Popen(
        command.split(), cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        data = b""
        while part := _read(ours):
            data += part
    os.close(ours)
    assert process.returncode in (0, 1), data.decode()
    return data.decode().replace("\r\n", "\n")


def first_words(text: str) -> list[str]:
    """Return how each line begins, without colours: what a picture is held to."""
    lines = [line.split("\r")[-1] for line in _CODE.sub("", text).split("\n")]
    return [re.sub(r"[\d.]+", "0", line.split()[0]) for line in lines if line.split()]


def shown_in(picture: Path) -> str:
    """Return the text of a picture, below its command."""
    lines = re.findall(r"<text[^>]*>(.*?)</text>", picture.read_text("utf-8"))
    return "\n".join(html.unescape(re.sub(r"<[^>]+>", "", line)) for line in lines[1:])


def drawn(screen: Screen, text: str) -> str:
    """Return a picture of a command and what it printed."""
    lines = [_frame(line, screen.frame) for line in text.rstrip("\n").split("\n")]
    if screen.frame is not None:
        lines = [part for line in lines for part in line.split("\r") if part.strip()]
    if len(lines) > screen.most:
        lines = [*lines[: screen.most - 4], "  ⋮", *lines[-3:]]
    rows = [f'<tspan class="prompt">$ </tspan>{html.escape(screen.command)}', *map(_spans, lines)]
    width = COLUMNS * _WIDTH + 2 * _PAD
    height = len(rows) * _HEIGHT + 2 * _PAD
    body = "\n".join(
        f'  <text x="{_PAD}" y="{_PAD + _HEIGHT * (n + 0.75):g}" xml:space="preserve">{row}</text>'
        for n, row in enumerate(rows)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" '
        f'font-size="14" role="img" aria-label="{html.escape(screen.command)}">\n'
        f"  <style>{_STYLE}  </style>\n"
        f'  <rect class="page" x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" '
        f'rx="8"/>\n{body}\n</svg>\n'
    )


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # The other end is closed.
        return b""


def _frame(line: str, share: float | None) -> str:
    """Return of a line that was drawn again and again the frame that is wanted, and the end."""
    frames = [frame for frame in line.split("\r") if frame.strip()]
    if share is None or len(frames) < 2:
        return frames[-1] if frames else ""
    bars = [
        (abs(int(found[1]) / 100 - share), frame)
        for frame in frames
        if (found := re.search(r"(\d+)%", frame))
    ]
    return "\r".join([*([min(bars)[1].rstrip()] if bars else []), frames[-1]])


def _spans(line: str) -> str:
    """Return a line with its colours as spans."""
    parts: list[str] = []
    classes: set[str] = set()
    for n, piece in enumerate(_CODE.split(line)):
        if n % 2:
            for code in piece.split(";"):
                classes = {*classes, _CLASSES.get(code, f"c{code}")} if int(code or 0) else set()
        elif piece and classes:
            parts.append(f'<tspan class="{" ".join(sorted(classes))}">{html.escape(piece)}</tspan>')
        else:
            parts.append(html.escape(piece))
    return "".join(parts)


def main() -> None:
    """Draw all of them anew."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder, data = Path(place) / "work", Path(place) / "server"
        folder.mkdir()
        data.mkdir()
        server = start_server("moto", data)
        try:
            server.client().create_bucket(Bucket="bucket")
            environ = environ_of(folder, server.environ)
            prepare(folder, environ, large=True)
            for screen in SCREENS:
                text = printed(screen.command, folder, environ)
                (FOLDER / f"{screen.name}.svg").write_text(drawn(screen, text), "utf-8")
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
