"""Requests to S3: one connection pool per process and set of options, with our own retries.

botocore's and s3fs' retries are switched off, because what a failure means depends on whether an
earlier attempt may have arrived: only who repeats a request can know that. How often they are to
try (``retries`` of botocore's configuration, AWS_MAX_ATTEMPTS) is how often this does.

Where nobody says how often: 8 times, within 45 s. A service that says that it is asked too often is
neither broken nor gone, and of hundreds of ranks that save at once each gets its turn: it is asked
again for five minutes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import io
import logging
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from ckptstore.errors import StorageError, UnsupportedError
from ckptstore.storage.s3errand import Errand
from ckptstore.storage.s3failure import Kind, checked, discreet, failure_of
from ckptstore.storage.s3options import AWS, attempts, named, prepared, public, secrets_of
from ckptstore.storage.s3wire import Reply
from ckptstore.storage.s3wires import Terms, Wires, terms_of
from ckptstore.storage.shown import Discretion

__all__ = ["Client", "client_for"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_LONGEST_WAIT = 4.0
_MOST_ATTEMPTS = 8
_GIVE_UP = 45.0
_GIVE_UP_UNREACHABLE = 10.0
_GIVE_UP_SLOW_DOWN = 300.0
_SLOWED = 60.0
# The global generator is the training's: what is drawn from it here would change what it draws.
_chance = random.SystemRandom()
_HEAVY = ("UploadPart", "PutObject", "GetObject")
_errand: contextvars.ContextVar[Errand | None] = contextvars.ContextVar("errand", default=None)


class Client:
    """Sends requests for every storage of this process that has the same options.

    Args:
        options: fsspec's storage options for s3fs.

    Attributes:
        endpoint: the server's URL, without credentials.
        options: those with which another process reaches the same server.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._arguments, endpoint = prepared(options)
        self.options = named(self._arguments, endpoint)
        self.endpoint = public(endpoint) if endpoint else AWS
        self._discretion = Discretion(secrets_of(self._arguments, endpoint), all_is_secret=False)
        self._attempts = attempts(self._arguments["config_kwargs"].pop("retries", None))
        self._slowed = -math.inf
        self._arguments["config_kwargs"]["retries"] = {"total_max_attempts": 1, "mode": "standard"}
        self._patience = float(self._arguments["config_kwargs"]["read_timeout"])
        self._lock = threading.Lock()
        self._connected: tuple[int, Any, Wires] | None = None

    def run(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Args:
            operation: boto's name of it.
            **parameters: boto's parameters.

        Raises:
            Failure: it failed, and repeating it did not help.
        """
        return self.wait(self.send(operation, **parameters))

    def move(self, operation: str, errand: Errand, **parameters: Any) -> dict[str, Any]:
        """Send a heavy request and wait for its answer; this thread carries the bytes itself.

        Args:
            operation: ``upload_part``, ``put_object`` or ``get_object``.
            errand: what memory is sent or filled.
            **parameters: boto's, without the Body.

        Raises:
            Failure: it failed, and repeating it did not help.
            CancelledError: `Errand.interrupt` was called.
        """
        future = self.start(self.send(operation, errand=errand, **parameters))
        future.add_done_callback(lambda _: errand.ask(None))
        try:
            errand.serve(future.cancel)
            return future.result()
        except BaseException:
            future.cancel()
            raise
        finally:
            errand.let_go()

    def start(self, work: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Begin something in the thread that does all the input and output."""
        return asyncio.run_coroutine_threadsafe(work, self._connection()[0].loop)

    def wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do something there and wait for it; an interrupt of this thread ends it there too."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def send(
        self, operation: str, *, errand: Errand | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """Send a request, again where that makes sense, and return the answer.

        Args:
            operation: boto's name of it.
            errand: what memory is sent or filled; only `move` has one.
            **parameters: boto's; a Body is bytes. The Body of an answer is bytes too.

        Raises:
            Failure: it failed, and repeating it did not help.
        """
        began = time.monotonic()
        lost = False
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._attempt(operation, errand, parameters)
            except Exception as error:  # What s3fs, botocore and aiohttp raise has no common base.
                failure = discreet(failure_of(error), self._discretion)
            lost = lost or failure.lost
            most, patience = self._bounds(failure.kind)
            pause = min(0.2 * 2 ** min(attempt - 1, 9), _LONGEST_WAIT) * _chance.uniform(0.5, 1)
            tired = time.monotonic() + pause > began + patience
            if not failure.again or attempt >= most or tired:
                failure.lost = lost
                raise failure
            await asyncio.sleep(pause)

    def _bounds(self, kind: Kind) -> tuple[float, float]:
        """Return how often, and for how many seconds, what failed so is tried."""
        now = time.monotonic()
        if kind is Kind.SLOW_DOWN:
            if now > self._slowed + _SLOWED:
                log.warning(
                    "%s asks for fewer requests (SlowDown); they are sent again", self.endpoint
                )
            self._slowed = now
        # The answer to a HEAD has no body, and does not say why it is 503.
        if kind is Kind.SLOW_DOWN or (kind is Kind.BUSY and now < self._slowed + _SLOWED):
            return self._attempts or math.inf, _GIVE_UP_SLOW_DOWN
        patience = _GIVE_UP_UNREACHABLE if kind is Kind.UNREACHABLE else _GIVE_UP
        return self._attempts or _MOST_ATTEMPTS, patience

    async def _attempt(
        self, operation: str, errand: Errand | None, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        fs, wires = self._connection()
        try:
            await fs.set_session()
        except (TypeError, ValueError) as error:
            raise _unfit(self._arguments, error) from self._discretion.cause(error)
        sent = dict(parameters)
        if errand is not None:
            errand.begin()
            await _watch(fs, wires, sent["Bucket"])
            if errand.body is not None:
                sent["Body"] = errand.body
        elif sent.get("Body") is not None:
            sent["Body"] = io.BytesIO(sent["Body"])  # aiohttp warns of large bytes.
        token = _errand.set(errand)
        try:
            work = fs._call_s3(operation, **sent)
            if "Body" in sent:
                return checked(operation, await self._while_it_moves(sent["Body"], errand, work))
            answer = checked(operation, await work)
            if operation == "get_object":
                answer["Body"] = await _taken(answer, errand)
        except Exception:
            if errand is not None and errand.failure is not None:
                raise errand.failure from None
            raise
        finally:
            _errand.reset(token)
        return answer

    async def _while_it_moves(
        self, body: io.IOBase, errand: Errand | None, work: Coroutine[Any, Any, _T]
    ) -> _T:
        """Await a request as long as its body is being taken.

        No timeout of aiohttp's is running while it sends, nor while it waits to be allowed to;
        who carries an errand has its own.
        """
        task = asyncio.ensure_future(work)
        try:
            place = -1
            while not task.done():
                if place == body.tell() and not (errand and errand.carried):
                    raise asyncio.TimeoutError
                place = body.tell()
                await asyncio.wait({task}, timeout=self._patience)
            return task.result()
        finally:
            task.cancel()

    def _connection(self) -> tuple[Any, Wires]:
        """Return s3fs' filesystem and our wires, made when first needed and again after a fork."""
        with self._lock:
            if self._connected is None or self._connected[0] != os.getpid():
                filesystem = _filesystem(self._arguments, self._discretion)
                self._connected = os.getpid(), filesystem, Wires()
            return self._connected[1:]


_CLIENTS: weakref.WeakValueDictionary[str, Client] = weakref.WeakValueDictionary()
_CLIENTS_LOCK = threading.Lock()


def client_for(options: Mapping[str, Any]) -> Client:
    """Return the client for these options, the same one as long as somebody uses it."""
    # Other variables mean other credentials or another endpoint.
    variables = {name: os.environ[name] for name in sorted(os.environ) if name.startswith("AWS_")}
    key = repr((os.getpid(), sorted(options.items(), key=str), variables))
    with _CLIENTS_LOCK:
        client = _CLIENTS.get(key)
        if client is None:
            client = _CLIENTS[key] = Client(options)
        return client


def _filesystem(arguments: Mapping[str, Any], discretion: Discretion) -> Any:
    try:
        import s3fs
    except ImportError as error:
        raise UnsupportedError(f"S3 needs the package s3fs: {error}; install it") from error
    try:
        filesystem = s3fs.S3FileSystem(**arguments)
    except (TypeError, ValueError, KeyError) as error:
        raise _unfit(arguments, error) from discretion.cause(error)
    filesystem.retries = 1
    return filesystem


def _unfit(arguments: Mapping[str, Any], error: Exception) -> StorageError:
    # What a value was may be a secret, so only names are told.
    return StorageError(
        f"the storage options {sorted(arguments)} or the AWS configuration do not fit S3 "
        f"({type(error).__name__}); see what s3fs.S3FileSystem takes"
    )


async def _watch(fs: Any, wires: Wires, bucket: str) -> None:
    """Have the heavy requests of s3fs' client for a bucket pass through `_carry`."""
    client = await fs.get_s3(bucket)
    if client in wires.watched:
        return
    session = getattr(getattr(client, "_endpoint", None), "http_session", None)
    carry = functools.partial(_carry, wires, session)
    for name in _HEAVY:
        client.meta.events.register(f"before-sign.s3.{name}", _checksum_counts)
        client.meta.events.register(f"before-send.s3.{name}", carry)
    wires.watched.add(client)


async def _carry(wires: Wires, session: Any, request: Any, **_: Any) -> Any:
    """Have the bytes of a signed request moved by the thread that waits for it."""
    errand = _errand.get()
    if errand is None or request.body is not (errand.body or request.body):
        return None  # Nobody waits, or botocore has wrapped the body up.
    terms = terms_of(session, request.url)
    if terms is None:
        return None
    from aiobotocore.awsrequest import AioAWSResponse

    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Reply] = loop.create_future()
    errand.carried = True
    errand.ask(functools.partial(_perform, wires, request, errand, terms, loop, answer))
    try:
        reply = await answer
    except asyncio.CancelledError:
        errand.stop()
        raise
    raw = _Received(reply.body)
    return AioAWSResponse(request.url, reply.status, reply.headers, raw)


def _checksum_counts(request: Any, **_: Any) -> None:
    """Have botocore take our checksum for one of its own, with which TLS needs no SHA-256."""
    name = "x-amz-checksum-crc32"
    if name in request.headers:
        found = {"algorithm": "crc32", "in": "header", "name": name}
        request.context.setdefault("checksum", {}).setdefault("request_algorithm", found)


class _Received:
    """The body of an answer that has come already, as aiobotocore wants to read it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, size: int | None = None) -> bytes:
        """Return what is left, at most so much."""
        data = self._data[:size]
        self._data = self._data[len(data) :]
        return data

    def close(self) -> None:
        """Do nothing."""


def _perform(
    wires: Wires,
    request: Any,
    errand: Errand,
    terms: Terms,
    loop: asyncio.AbstractEventLoop,
    answer: asyncio.Future[Reply],
) -> None:
    """Carry a request in this thread, and tell the one that made it what came of it."""

    def tell(act: Callable[[Any], None], what: object) -> None:
        if not answer.done():
            act(what)

    try:
        reply = wires.carry(request, errand, terms)
    except Exception as error:  # It is raised where the request was made.
        loop.call_soon_threadsafe(tell, answer.set_exception, error)
    else:
        loop.call_soon_threadsafe(tell, answer.set_result, reply)


async def _taken(answer: dict[str, Any], errand: Errand | None) -> bytes:
    """Read a body: into memory that is there already, so that no second copy of it is, or whole."""
    stream = answer["Body"]
    try:
        if errand is None:
            return bytes(await stream.read())
        if errand.filled:
            return b""
        errand.takes(200, {"etag": answer["ETag"]}, answer.get("ContentLength"))
        for target in errand.targets:
            await _fill(stream, target)
        if await stream.read(1):
            raise EOFError("the answer is longer than what was asked for")
        return b""
    finally:
        stream.close()


async def _fill(stream: Any, target: memoryview) -> None:
    place = 0
    while place < len(target):
        data = await stream.read(min(2**18, len(target) - place))
        if not data:
            raise EOFError("the answer ended early")
        target[place : place + len(data)] = data
        place += len(data)
