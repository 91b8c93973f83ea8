"""A real Chromium, spoken to over a pipe: opens a page, measures it, and takes its picture.

https://chromedevtools.github.io/devtools-protocol/ says what can be asked. Nothing but Python's own
library is needed, and no port is opened.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["Chromium", "Page", "chromium"]

_PATIENCE = 60
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def chromium() -> str | None:
    """Return the browser to use, or None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class Page:
    """One page, as wide as it was asked for and as long as it is."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the page for something."""
        return self._browser.ask(method, session=self._session, heard=self.events, **parameters)

    def look(self, expression: str) -> Any:
        """Return what an expression is, as JSON has it; the page's own policy does not bind it."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path | None = None, *, scale: float = 1.0) -> bytes:
        """Return all of the page as a PNG, and write it into a file if one is named."""
        root = "document.documentElement"
        width, height = self.look(f"[{root}.scrollWidth, {root}.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": scale}
        shot = self.ask(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
        )
        data = base64.b64decode(shot["data"])
        if path is not None:
            path.write_bytes(data)
        return data

    @property
    def requests(self) -> list[str]:
        """The URLs that the page has asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    @property
    def complaints(self) -> list[str]:
        """What the browser has said against the page: violations of its policy, errors."""
        return [
            event["params"]["entry"]["text"]
            for event in self.events
            if event["method"] == "Log.entryAdded"
        ]


class Chromium:
    """A browser of its own, with an empty profile; a context manager that ends it."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._numbers = itertools.count(1)
        self._target = ""
        self._buffer = b""

    def __enter__(self) -> Chromium:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # It reads from 3 and writes to 4. Both ends are moved away from there first.
        script = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
        words = [self._program, *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, "chromium", str(theirs_in), str(theirs_out), *words],
            pass_fds=[theirs_in, theirs_out],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            self.ask("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, url: str, *, width: int = 1280, scheme: str = "light") -> Page:
        """Open a page and return it once it is loaded; the one before it is closed."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        if self._target:
            self.ask("Target.closeTarget", targetId=self._target)
        self._target = target
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Network", "Log", "Runtime"):
            page.ask(f"{domain}.enable")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.ask("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.ask("Emulation.setEmulatedMedia", features=features)
        page.ask("Page.navigate", url=url)
        deadline = time.monotonic() + _PATIENCE
        while page.look("document.readyState + location.href") != f"complete{url}":
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} was not loaded in {_PATIENCE} seconds")
            time.sleep(0.02)
        return page

    def ask(
        self,
        method: str,
        *,
        session: str | None = None,
        heard: list[dict[str, Any]] | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Send a message, and return the answer; what is said unasked goes to ``heard``."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            if heard is not None and "method" in answer:
                heard.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], _PATIENCE)[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._in, 2**20)
            if not data:
                raise OSError("the browser has ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)
