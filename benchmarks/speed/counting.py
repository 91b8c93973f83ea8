"""Counts what goes over a connection, between a client and a server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

__all__ = ["Counting"]

_BLOCK = 2**16
_END = b" HTTP/1.1\r\n"


class Counting:
    """Passes bytes on and counts them; a context manager. Bodies of requests are not looked for.

    Args:
        target: the server's URL.

    Attributes:
        url: where to reach the server through this.
        requests: how many were made.
        sent: bytes that went to the server, heads included.
        received: bytes that the server answered, heads included.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = parts.hostname or "127.0.0.1", parts.port or 80
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._closed = False
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests = 0
        self.sent = 0
        self.received = 0

    def __enter__(self) -> Counting:
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closed = True
        socket.create_connection(self._listener.getsockname()).close()  # Ends the wait for one.
        self._threads[0].join()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for one in (self._listener, *self._sockets):
            one.close()

    def _start(self, call: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=call, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            self._sockets.append(client)
            if self._closed:
                return
            server = socket.create_connection(self._target)
            self._sockets.append(server)
            self._start(self.pass_on, client, server, True)
            self._start(self.pass_on, server, client, False)

    def pass_on(self, source: socket.socket, target: socket.socket, asking: bool) -> None:
        """Pass on what comes from one side, until it ends.

        Args:
            source: where it comes from.
            target: where it goes to.
            asking: whether this is the client's side.
        """
        last = b""
        with contextlib.suppress(OSError):
            while data := source.recv(_BLOCK):
                with self._lock:
                    if asking:
                        # A request's first line may come in two pieces.
                        self.requests += (last + data).count(_END)
                        last = data[1 - len(_END) :]
                        self.sent += len(data)
                    else:
                        self.received += len(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
