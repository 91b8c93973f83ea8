"""The connections for heavy requests: where they lead, on which terms, and when they are closed.

botocore builds and signs a request and reads its answer; here it is only carried, and what goes
wrong is told in the errors that botocore's own sessions raise.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ckptstore.storage.s3errand import Errand, InterruptedErrandError
from ckptstore.storage.s3wire import NoAnswerError, Reply, Wire

__all__ = ["Terms", "Wires", "terms_of"]

_MOST_IDLE = 32


@dataclass(frozen=True)
class Terms:
    """How to connect: what the user configured.

    Attributes:
        verify: True, False, or the path of the certificates to trust.
        connect_timeout: seconds.
        read_timeout: seconds in which a byte must have moved.
        socket_options: arguments of `setsockopt`.
    """

    verify: bool | str
    connect_timeout: float
    read_timeout: float
    socket_options: tuple[tuple[Any, ...], ...]


def terms_of(session: Any, url: str) -> Terms | None:
    """Return the terms of an HTTP session of aiobotocore, or None where they cannot be kept here.

    Those are proxies, certificates of clients, connectors that somebody chose, and sessions that
    are not aiohttp's.
    """
    if type(session).__name__ != "AIOHTTPSession":
        return None
    try:
        verify, timeout = session._verify, session._timeout
        plain = (
            session._proxy_config.proxy_url_for(url) is None
            and session._cert_file is None
            and set(session._connector_args) == {"keepalive_timeout"}
        )
        options = tuple(tuple(option) for option in session._socket_options)
        limits = float(timeout.sock_connect), float(timeout.sock_read)
    except (AttributeError, TypeError):
        return None  # Another version of aiobotocore.
    return Terms(verify, *limits, options) if plain else None


class Wires:
    """The connections of one process to where its heavy requests go.

    Attributes:
        watched: botocore's clients whose heavy requests come here.
    """

    def __init__(self) -> None:
        self.watched: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._idle: dict[tuple[Any, ...], list[Wire]] = {}
        self._contexts: dict[bool | str, ssl.SSLContext] = {}
        weakref.finalize(self, _close, self._idle)

    def carry(self, request: Any, errand: Errand, terms: Terms) -> Reply:
        """Send a request that botocore has signed, and return the answer to it.

        Raises:
            BotoCoreError: what aiobotocore would raise.
            InterruptedErrandError: `Errand.interrupt` was called.
        """
        head, asks = _head_of(request)
        parts = urlsplit(request.url)
        place = parts.scheme, parts.hostname, parts.port, terms
        while True:
            wire = self._take(place) or self._new(request.url, terms)
            keeps = False
            try:
                with _translated(request), errand.on(wire):
                    reply, keeps = wire.carry(head, errand, asks=asks)
                return reply
            except Exception:
                # The server had closed it before it heard of this; nobody knows better than to ask
                # again, and what may be asked twice is.
                if not wire.used or wire.answers or not errand.repeats or errand.interrupted:
                    raise
            finally:
                self._give(place, wire, keeps)

    def _take(self, place: tuple[Any, ...]) -> Wire | None:
        while True:
            with self._lock:
                idle = self._idle.get(place)
                wire = idle.pop() if idle else None
            if wire is None or wire.is_fresh():
                return wire
            wire.close()

    def _give(self, place: tuple[Any, ...], wire: Wire, keeps: bool) -> None:
        with self._lock:
            idle = self._idle.setdefault(place, [])
            if keeps and len(idle) < _MOST_IDLE:
                idle.append(wire)
                return
        wire.close()

    def _new(self, url: str, terms: Terms) -> Wire:
        from botocore import exceptions as boto

        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            sock = socket.create_connection((parts.hostname or "", port), terms.connect_timeout)
            try:
                for option in terms.socket_options:
                    sock.setsockopt(*option)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if parts.scheme == "https":
                    context = self._context(terms.verify)
                    sock = context.wrap_socket(sock, server_hostname=parts.hostname)
            except BaseException:
                sock.close()
                raise
        except ssl.SSLError as error:
            raise boto.SSLError(endpoint_url=url, error=error) from error
        except TimeoutError as error:
            raise boto.ConnectTimeoutError(endpoint_url=url, error=error) from error
        except OSError as error:
            raise boto.EndpointConnectionError(endpoint_url=url, error=error) from error
        return Wire(sock, terms.read_timeout)

    def _context(self, verify: bool | str) -> ssl.SSLContext:
        from botocore.httpsession import create_urllib3_context, get_cert_path

        with self._lock:
            context = self._contexts.get(verify)
            if context is None:
                context = create_urllib3_context()
                context.check_hostname = bool(verify)
                if verify:
                    context.load_verify_locations(get_cert_path(verify))
                else:
                    context.verify_mode = ssl.CERT_NONE
                self._contexts[verify] = context
            return context


def _close(idle: dict[tuple[Any, ...], list[Wire]]) -> None:
    for wires in idle.values():
        for wire in wires:
            wire.close()


@contextlib.contextmanager
def _translated(request: Any) -> Iterator[None]:
    """Raise botocore's errors instead of the system's."""
    from botocore import exceptions as boto

    try:
        yield
    except InterruptedErrandError:
        raise
    except TimeoutError as error:
        raise boto.ReadTimeoutError(endpoint_url=request.url, error=error) from error
    except NoAnswerError as error:
        raise boto.HTTPClientError(error=error) from error
    except (OSError, EOFError) as error:
        raise boto.ConnectionClosedError(
            endpoint_url=request.url, request=request, error=error
        ) from error


def _head_of(request: Any) -> tuple[bytes, bool]:
    """Return the request line and headers of a request, and whether it asks before its body."""
    parts = urlsplit(request.url)
    target = parts._replace(scheme="", netloc="").geturl() or "/"
    headers = {name: _text(value) for name, value in request.headers.items()}
    names = {name.lower() for name in headers}
    if "host" not in names:
        headers["Host"] = parts.netloc.rpartition("@")[2]
    if "accept-encoding" not in names:
        headers["Accept-Encoding"] = "identity"
    lines = [f"{request.method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header of a request holds a line break")
    asks = any(name.lower() == "expect" for name in headers)
    return "\r\n".join([*lines, "", ""]).encode("utf-8"), asks


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
