"""An S3 server that discards what it is given and feeds what it was told: the client is measured.

It is no storage. It speaks just enough of S3 for ckptstore, boto3, s3fs and obstore: PUT, GET with
ranges, HEAD, DELETE, copies, multipart uploads, listings, If-None-Match and If-Match. A body is
received into one buffer that is used again and again, and forgotten; kept are its size, an ETag,
and 8 MiB at either end of an object, since whoever saves a checkpoint looks at its directory
there. What was forgotten reads as zeros. Neither signatures nor checksums are looked at. Objects
to be read are files of this machine, sent by sendfile(2).

It is a process of its own, so that it shares cores with the client and nothing else:

    with Swallowing({"bucket/model.pt": "/tmp/model.pt"}, tls=True) as server:
        options = server.storage_options   # for ckptstore and s3fs
        server.url, server.certificate

or ``python -m benchmarks.swallow [--tls FOLDER] [KEY=FILE ...]``, which prints its URL.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.swallow_s3 import Connection
from benchmarks.swallow_shelf import Shelf, fed

__all__ = ["Swallowing"]

_ROOT = Path(__file__).parents[1]


class Swallowing:
    """Starts the server, as a context manager.

    Args:
        files: what can be read, by ``bucket/key``: the path of a file, or bytes.
        tls: whether it speaks TLS, with a certificate that it signed itself.

    Attributes:
        url: of the server.
        certificate: the path of its certificate, for a client's ``verify``; None without TLS.
        process: the server.
    """

    url: str
    certificate: str | None
    process: subprocess.Popen[str]

    def __init__(
        self, files: Mapping[str, str | Path | bytes] | None = None, *, tls: bool = False
    ) -> None:
        self._files = dict(files or {})
        self._tls = tls

    def __enter__(self) -> Swallowing:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self.certificate = str(folder / "certificate.pem") if self._tls else None
        arguments = ["--tls", str(folder)] if self._tls else []
        for number, (key, content) in enumerate(self._files.items()):
            if isinstance(content, bytes):
                (folder / f"{number}").write_bytes(content)
                content = folder / f"{number}"
            arguments.append(f"{key}={Path(content).resolve()}")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.swallow", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError("the server did not start")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.communicate()
        self._folder.cleanup()

    @property
    def storage_options(self) -> dict[str, Any]:
        """What reaches it with ckptstore, signed as for a real bucket: the body is not hashed."""
        inner = {"verify": self.certificate} if self._tls else {}
        return {
            "endpoint_url": self.url,
            "key": "key",
            "secret": "secret",
            "client_kwargs": {"region_name": "us-east-1", **inner},
            "config_kwargs": {"s3": {"payload_signing_enabled": False}},
        }


def _context(folder: Path) -> ssl.SSLContext:
    """Return TLS with a new certificate, written into ``folder``, that openssl made."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _answer(sock: socket.socket, context: ssl.SSLContext | None, shelf: Shelf) -> None:
    with contextlib.suppress(OSError):
        if context is not None:
            sock.settimeout(10)
            sock = context.wrap_socket(sock, server_side=True)
            sock.settimeout(None)
        Connection(sock, shelf).serve()


def main() -> None:
    """Serve until it is killed; print the URL first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tls", type=Path, metavar="FOLDER", help="for the certificate")
    parser.add_argument("files", nargs="*", metavar="KEY=FILE", help="what can be read")
    arguments = parser.parse_args()
    shelf = Shelf()
    for key, _, path in (text.partition("=") for text in arguments.files):
        shelf.things[key] = fed(Path(path))
    context = _context(arguments.tls) if arguments.tls else None
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    print(f"{'https' if context else 'http'}://127.0.0.1:{port}", flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_answer, args=(sock, context, shelf), daemon=True).start()


if __name__ == "__main__":
    main()
