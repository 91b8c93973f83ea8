"""Secrets that are planted wherever one can put them, and a search of everything that is told."""

from __future__ import annotations

import base64
import dataclasses
import http.server
import json
import logging
import pickle
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import torch
from click.testing import CliRunner

import ckptstore

PLANTED = {
    "key": "AKIAPLANTED0KEY",
    "secret": "planted/Secret+Key=1",
    "token": "planted.Session~Token/2",
    "user": "planted-user-3",
    "password": "planted:pass/word@4",
    "signature": "planted5signature%5",
    "query token": "planted6token",
    "bearer": "planted7bearer",
    "customer key": "planted8customer-key-of-32-bytes",
}


def forms(secret: str) -> set[str]:
    """Return how a secret may show: as it is, escaped for a URL, in base64, as Python's repr."""
    return {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        base64.b64encode(secret.encode()).decode().rstrip("="),
        base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="),
        base64.b64encode(f"{PLANTED['user']}:{secret}".encode()).decode().rstrip("="),
    }


FORMS = {name: forms(secret) for name, secret in PLANTED.items()}


def betrayed(text: str) -> list[str]:
    """Return which secrets a text holds, each with what stands around it."""
    found = []
    for name, shapes in FORMS.items():
        for shape in shapes:
            at = text.find(shape)
            if at >= 0:
                found.append(f"{name}: {text[max(0, at - 100) : at + 100]!r}")
    return found


def shown(value: Any, depth: int = 0) -> Iterator[str]:
    """Give every text that a public value shows of itself."""
    yield f"{value} {value!r}"
    if isinstance(value, BaseException):
        yield "".join(traceback.format_exception(value))
        yield repr(vars(value)) + repr(value.args)
        # Whatever goes to another process is told there.
        yield pickle.dumps(value).decode("latin-1")
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and depth < 3:
        for field in dataclasses.fields(value):
            yield from shown(getattr(value, field.name), depth + 1)
    if isinstance(value, (list, tuple)) and depth < 3:
        for item in value:
            yield from shown(item, depth + 1)


@pytest.fixture
def planted() -> dict[str, str]:
    """Give the secrets, by what they are."""
    return dict(PLANTED)


class Told:
    """Collects everything that is told while something is done."""

    def __init__(self, caplog: Any, capfd: Any) -> None:
        self.texts: list[str] = []
        self.ended: list[str] = []
        self._caplog = caplog
        self._capfd = capfd

    def by(self, act: Callable[[], Any]) -> Any:
        """Do something, and keep its result or its exception, output, warnings and progress."""
        value: Any = None
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                value = act()
                self.ended.append("done")
            except Exception as error:
                self.texts += shown(error)
                self.ended.append(type(error).__name__)
            else:
                self.texts += shown(value)
        self.texts += [str(warning.message) for warning in warned]
        self.texts += self._capfd.readouterr()
        return value

    def betrays(self) -> list[str]:
        """Return every secret that anything told, and the log, from all loggers, with it."""
        formatter = logging.Formatter("%(name)s %(message)s")
        for record in self._caplog.records:
            if record.name.startswith(("ckptstore", "gpt")) or record.levelno >= logging.WARNING:
                self.texts.append(formatter.format(record))
        return [found for text in self.texts for found in betrayed(text)]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Told:
    """Give a collector; ckptstore logs all it has to say."""
    caplog.set_level(logging.DEBUG, "ckptstore")
    return Told(caplog, capfd)


@pytest.fixture
def use(told: Told, tmp_path: Path) -> Callable[..., None]:
    """Give a function that calls every public function on a location: ``use(url, options)``."""
    model = {"w": torch.ones(3)}
    ckptstore.save(tmp_path / "other", model=model, step=9)

    def use(url: str, options: dict[str, Any] | None) -> None:
        chosen = {"storage_options": options}
        store = told.by(lambda: ckptstore.Store(url, **chosen))
        told.by(lambda: ckptstore.save(url, model=model, step=1, **chosen))
        checkpoint = told.by(lambda: ckptstore.open(url, **chosen))
        if store is not None:
            told.by(lambda: store.save_async(model=model, step=2).result())
            told.by(store.steps)
            told.by(store.generations)
            told.by(lambda: store.repair(dry_run=True))
        if checkpoint is not None:
            checkpoint = told.by(lambda: ckptstore.open(url, **chosen))
            told.by(checkpoint.load_model)
            told.by(
                lambda: checkpoint.verify(progress=lambda event: told.texts.extend(shown(event)))
            )
        copy = tmp_path / "copy"
        told.by(lambda: ckptstore.sync(url, copy, **chosen))
        told.by(lambda: ckptstore.sync(tmp_path / "other", url, **chosen))
        told.by(lambda: ckptstore.convert(url, tmp_path / "converted", **chosen))
        for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
            told.texts.append(path.read_bytes().decode("latin-1"))

    return use


COMMANDS = [
    ["inspect", "--json"],
    ["-vv", "verify", "--json"],
    ["ls", "--json"],
    ["ls"],
    ["-vv", "doctor"],
    ["doctor", "--fix"],
    ["-vv", "sync", "to"],
    ["convert", "to"],
    ["-vv", "rm", "--yes"],
]


@pytest.fixture
def use_commands(told: Told, tmp_path: Path) -> Callable[..., None]:
    """Give a function that runs every command on a location: ``use_commands(url, options)``."""
    from ckptstore.cli import main

    def use_commands(url: str, options: dict[str, Any] | None = None) -> None:
        pairs = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in (options or {}).items()
        }
        more = [part for pair in pairs.items() for part in ("--storage-option", "=".join(pair))]
        for number, command in enumerate(COMMANDS):
            copy = [str(tmp_path / f"to-{number}")] if command[-1] == "to" else []
            line = [*(part for part in command if part != "to"), url, *copy, *more]
            result = CliRunner().invoke(main, line)
            told.texts += [result.stdout, result.stderr, repr(result.exception)]
            told.ended.append(str(result.exit_code))
        told.texts.append(CliRunner().invoke(main, ["plugins"]).output)

    return use_commands


class Echo(http.server.BaseHTTPRequestHandler):
    """A server that tells everybody, in its error, what it was sent."""

    def do_GET(self) -> None:
        said = quote(" ".join([self.path, *map(str, self.headers.items())]), safe=" '(),:/+=@.~")
        body = f"<Error><Code>Odd</Code><Message>you sent {said}</Message></Error>".encode()
        self.send_response(418)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    """Give the endpoint of a server that repeats what it is sent."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
