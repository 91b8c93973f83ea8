"""The storages that the contract is tested on, and a proxy that loses requests and answers."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ckptstore import storage as storages

KINDS = ["local", "memory", "moto", "rclone", "general folders", "general memory"]


@pytest.fixture(params=KINDS)
def connect(request: pytest.FixtureRequest) -> Callable[[str], storages.Storage]:
    """Give a function that connects to a folder of one place, on each kind of storage in turn."""
    from ckptstore.storage.general import GeneralStorage

    kind = request.param
    if kind == "local":
        root = request.getfixturevalue("tmp_path")
        return lambda folder: storages.connect(root / folder)
    if kind == "general folders":
        root: Path = request.getfixturevalue("tmp_path")
        (root / "shelf").mkdir()
        options = {"path": str(root), "target_protocol": "file"}
        return lambda folder: storages.connect(f"dir://shelf/{folder}", options)
    if kind in ("memory", "general memory"):
        url = request.getfixturevalue("memory_url")
        if kind == "memory":
            return lambda folder: storages.connect(f"{url}/{folder}")
        return lambda folder: GeneralStorage("memory", f"{url}/{folder}", {})
    server = request.getfixturevalue(f"{kind}_server")
    url = server.url()
    return lambda folder: storages.connect(f"{url}/{folder}", server.storage_options)


@pytest.fixture
def storage(connect: Callable[[str], storages.Storage]) -> storages.Storage:
    """Give an empty storage of each kind in turn, under a name that is hard to take literally."""
    return connect("run [a-z]* 100% #1 日本")


@dataclass
class Fault:
    """What a `Proxy` does to some requests.

    Attributes:
        method: of the requests, such as ``PUT``.
        part: text that their path and query hold.
        action: ``lose`` passes the request on and keeps the answer, ``drop`` does neither,
            ``slow``, ``conflict`` and ``expired`` answer as S3 does in such a case, ``stall``
            never answers.
        times: how many requests it hits.
    """

    method: str
    part: str
    action: str
    times: int


ANSWERS = {
    "slow": (503, "SlowDown", "Please reduce your request rate."),
    "conflict": (409, "ConditionalRequestConflict", "Conflicting operation in progress."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "unconditional": (501, "NotImplemented", "A header you provided is not implemented."),
}


class Proxy:
    """Stands between ckptstore and a server, and harms the requests that its faults name.

    Attributes:
        storage_options: as the server's, by way of the proxy.
        faults: what to do; may be changed at any time.
        requests: method, path with query, and headers of all requests so far.
        most_at_once: of the requests for parts of an upload.
    """

    def __init__(self, server) -> None:
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.most_at_once = self._at_once = 0
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._target = server.endpoint.removeprefix("http://")
        self._listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._listener.daemon_threads = True
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,))
        self._thread.start()
        port = self._listener.server_address[1]
        endpoint = f"http://127.0.0.1:{port}"
        self.storage_options = {
            **server.storage_options,
            "endpoint_url": endpoint,
            "config_kwargs": {"retries": {"total_max_attempts": 4}},
        }

    def harm(self, method: str, part: str, action: str = "lose", times: int = 1) -> None:
        """Add a `Fault` for some requests to come."""
        self.faults.append(Fault(method, part, action, times))

    def stop(self) -> None:
        self.released.set()
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    def count(self, method: str, part: str = "") -> int:
        """Return how many requests there were."""
        return sum(verb == method and part in path for verb, path, _ in self.requests)

    def _fault(self, method: str, path: str) -> str | None:
        with self._lock:
            for fault in self.faults:
                if fault.method == method and fault.part in path and fault.times:
                    fault.times -= 1
                    return fault.action
        return None

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # Older ones never say 100-continue.

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                part = "partNumber" in self.path
                with proxy._lock:
                    proxy.requests.append((self.command, self.path, dict(self.headers)))
                    proxy._at_once += part
                    proxy.most_at_once = max(proxy.most_at_once, proxy._at_once)
                try:
                    self._answer(body)
                finally:
                    with proxy._lock:
                        proxy._at_once -= part

            def do_PUT(self) -> None:
                self.do_GET()

            def do_POST(self) -> None:
                self.do_GET()

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_DELETE(self) -> None:
                self.do_GET()

            def _answer(self, body: bytes) -> None:
                self.close_connection = True
                action = proxy._fault(self.command, self.path)
                if action == "stall":
                    proxy.released.wait()
                elif action in ANSWERS:
                    status, code, message = ANSWERS[action]
                    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
                    self._send(status, [("Content-Type", "application/xml")], text.encode())
                elif action != "drop":
                    upstream = http.client.HTTPConnection(proxy._target, timeout=60)
                    headers = {n: v for n, v in self.headers.items() if n.lower() != "expect"}
                    try:
                        upstream.request(self.command, self.path, body, headers)
                        reply = upstream.getresponse()
                        data = reply.read()
                    except OSError:
                        return
                    finally:
                        upstream.close()
                    if action != "lose":
                        self._send(reply.status, reply.getheaders(), data)

            def _send(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(name, value)
                if not any(name.lower() == "content-length" for name, _ in headers):
                    self.send_header("Content-Length", str(len(data)))
                self.send_header("Connection", "close")
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(b"" if self.command == "HEAD" else data)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """Give a proxy in front of moto."""
    standing = Proxy(request.getfixturevalue("moto_server"))
    yield standing
    standing.stop()


@pytest.fixture
def through(proxy: Proxy, moto_server) -> storages.Storage:
    """Give a storage whose requests go through the proxy; it gives up after four attempts."""
    return storages.connect(moto_server.url("dante"), proxy.storage_options)
