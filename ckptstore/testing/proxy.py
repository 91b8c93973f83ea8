"""A proxy that stands between ckptstore and an S3 server, and harms the requests that are named.

It speaks plain HTTP on this machine, and passes everything else on as it is: a real server does
the work, so what a fault leaves there is what it leaves anywhere. Bodies are passed on as they
come, so an upload of any size needs no memory here. Every reply closes its connection, so that no
client repeats a request by itself because a connection that it had kept was closed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from ckptstore.testing.relay import Listener, Traffic
from ckptstore.testing.s3faults import ANSWERS, HARMS, S3Fault

__all__ = ["S3Proxy"]


class S3Proxy:
    """Stands between ckptstore and an S3 server, and harms the requests that its faults name.

    A context manager: ``with S3Proxy("http://127.0.0.1:9000") as proxy:`` listens at
    ``proxy.endpoint`` until the block is left. Needs no pytest, and works for other processes.

    Args:
        endpoint: the server's URL; ``http`` only.
        storage_options: what reaches the server; `storage_options` is the same by way of the
            proxy.

    Attributes:
        endpoint: the proxy's own URL.
        storage_options: what reaches the server by way of the proxy.
    """

    def __init__(self, endpoint: str, storage_options: Mapping[str, Any] | None = None) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme != "http" or not parts.netloc:
            raise ValueError(f"endpoint is {endpoint!r}; name a server as http://host:port")
        self._traffic = Traffic(parts.netloc)
        self._listener = Listener(self._traffic)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,))
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._listener.server_address[1]}"
        self.storage_options = {**(storage_options or {}), "endpoint_url": self.endpoint}

    def __enter__(self) -> S3Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def faults(self) -> list[S3Fault]:
        """What to do; may be changed at any time. The first that fits a request counts."""
        return self._traffic.faults

    @property
    def requests(self) -> list[tuple[str, str, dict[str, str]]]:
        """Method, path with query, and headers of all requests so far."""
        return self._traffic.requests

    @property
    def most_at_once(self) -> int:
        """How many requests for parts of an upload there were at once, at most."""
        return self._traffic.most_at_once

    def harm(self, method: str = "", part: str = "", action: str = "lose", **rest: Any) -> S3Fault:
        """Add a fault for some requests to come, and return it.

        Args:
            method: of the requests, such as ``PUT``; all where it is empty.
            part: text that their path and query hold.
            action: a key of `HARMS`, or of `ANSWERS`.
            **rest: ``times``, ``after``, ``rate``, ``seconds`` of `S3Fault`.

        Raises:
            ValueError: there is no such action.
        """
        if action not in HARMS and action not in ANSWERS:
            raise ValueError(
                f"there is no action {action!r}; there are {', '.join((*HARMS, *ANSWERS))}"
            )
        fault = S3Fault(method, part, action, **rest)
        self.faults.append(fault)
        return fault

    def mend(self) -> None:
        """Forget all faults; what is held back goes on."""
        self.faults.clear()
        self.release()

    def release(self) -> None:
        """Let the requests that are held back go to the server now."""
        self._traffic.release()

    def count(self, method: str = "", part: str = "") -> int:
        """Return how many requests there were, harmed ones included."""
        return sum(method in ("", verb) and part in path for verb, path, _ in self.requests)

    def close(self) -> None:
        """Stop listening; requests that are held back are forgotten."""
        self._traffic.closed.set()
        self.release()
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()
