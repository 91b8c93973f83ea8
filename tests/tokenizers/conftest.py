"""A server on loopback that stands for OpenAI's, and sends what a test wants of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ckptstore.tokenizers import gpt2_files


class Server:
    """What is sent for each path, and what was asked for.

    Attributes:
        answers: by name, the status, the bytes, and how many bytes are promised.
        asked: the names that were asked for, in order.
    """

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        files = {file.name: (folder / file.cached_as).read_bytes() for file in gpt2_files.FILES}
        self.answers = {name: (200, data, len(data)) for name, data in files.items()}


@pytest.fixture
def openai(gpt2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Give a real HTTP server from which the two files are fetched, and no other."""
    server = Server(gpt2_folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            server.asked.append(name)
            status, data, promised = server.answers.get(name, (404, b"", 0))
            self.close_connection = True
            with suppress(ConnectionError):  # Who has heard enough hangs up.
                self.send_response(status)
                self.send_header("Content-Length", str(promised))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *ignored: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    port = listening.server_address[1]
    monkeypatch.setattr(gpt2_files, "SOURCE", f"http://127.0.0.1:{port}/encodings/main/")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield server
    listening.shutdown()
    listening.server_close()
    thread.join()
