"""Heavy requests from end to end: bytes that are lent, copied by the service, read into memory."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from benchmarks.swallow import Swallowing
from ckptstore.errors import NotFoundError, StorageError
from ckptstore.storage import connect, s3checks, s3client
from ckptstore.storage.base import Held

MIB = 2**20
PART = 8 * MIB
FEW = {"retries": {"total_max_attempts": 2}}


def lend(storage, name, data, hints=None, piece=MIB):
    """Lend the bytes in pieces; ``hints`` says of each place where it is held."""
    with storage.writer(name, expected_size=len(data)) as sink:
        for start in range(0, len(data), piece):
            view = memoryview(data)[start : start + piece]
            sink.lend(view, hints and hints(start))


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ckptstore-")]


class TestLending:
    @pytest.mark.parametrize("signed", [True, False])
    @pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 21 * MIB + 12_345])
    def test_what_was_lent_is_what_arrives(self, s3_server, size, signed):
        options = {"config_kwargs": {"s3": {"payload_signing_enabled": signed}}}
        storage = connect(s3_server.url(), {**s3_server.storage_options, **options})
        data = random.Random(size).randbytes(size)

        lend(storage, "a", data, piece=300_000)

        assert storage.read("a") == data
        assert threads() == []

    def test_lent_and_written_bytes_keep_their_order(self, moto_server):
        storage = connect(moto_server.url(), moto_server.storage_options)
        pieces = [random.Random(number).randbytes(1 + number * 7919) for number in range(80)]

        with storage.writer("a") as sink:
            for number, piece in enumerate(pieces):
                (sink.lend if number % 3 else sink.write)(memoryview(piece))

        assert storage.read("a") == b"".join(pieces)

    @pytest.mark.parametrize("size", [100, 3 * PART])
    def test_every_part_goes_with_a_checksum(self, through, proxy, size):
        lend(through, "a", bytes(size))

        sent = [head for verb, path, head in proxy.requests if verb == "PUT" and "dante/a" in path]
        assert len(sent) == max(1, size // PART)
        assert all("x-amz-checksum-crc32" in {name.lower() for name in head} for head in sent)

    def test_a_part_that_was_damaged_on_its_way_is_sent_again(self, through, proxy):
        fault = proxy.harm("PUT", "partNumber=2", "BadDigest")
        data = random.Random(0).randbytes(3 * PART)

        lend(through, "a", data)

        assert fault.times == 0
        assert through.read("a") == data
        assert (through._client.endpoint, through._bucket) not in s3checks._refused

    @pytest.mark.parametrize(("method", "part"), [("POST", "?uploads"), ("PUT", "dante/a")])
    def test_a_service_that_takes_no_checksums_is_used_without(self, through, proxy, method, part):
        data = bytes(3 * PART if method == "POST" else 10)
        proxy.harm(method, part, "NotImplemented")

        lend(through, "a", data)
        proxy.requests.clear()
        lend(through, "b", data)

        assert through.read("a") == data
        names = {name.lower() for _, _, head in proxy.requests for name in head}
        assert "x-amz-checksum-crc32" not in names

    def test_no_second_copy_is_made_of_what_is_lent(self, moto_server):
        program = f"""
import resource
from ckptstore.storage import connect
storage = connect({moto_server.url()!r})
storage.create("first", b"x")
data = bytearray(b"x" * {300 * MIB})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with storage.writer("large", expected_size=len(data)) as sink:
    for start in range(0, len(data), {PART}):
        sink.lend(memoryview(data)[start : start + {PART}])
storage.delete("large")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
        environ = {**os.environ, **moto_server.environ}

        done = subprocess.run(
            [sys.executable, "-c", program], env=environ, check=True, capture_output=True
        )

        assert int(done.stdout) < 40

    def test_an_exception_ends_the_threads_and_the_upload(self, through, proxy, moto_server):
        proxy.harm("PUT", "partNumber", "stall", times=None)
        began = time.monotonic()

        def fail():
            with through.writer("a", expected_size=4 * PART) as sink:
                sink.lend(memoryview(bytes(3 * PART)))
                time.sleep(0.3)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()

        assert threads() == []
        assert time.monotonic() - began < 10
        assert moto_server.uploads(through.location) == []

    @pytest.mark.skipif(not hasattr(signal, "SIGINT"), reason="nothing interrupts here")
    @pytest.mark.parametrize("size", [MIB, 6 * PART])
    def test_an_interrupt_ends_an_upload_wherever_it_is(self, through, proxy, moto_server, size):
        proxy.harm("PUT", "dante/a", "stall", times=None)
        program = f"""
import threading
from ckptstore.storage import connect
storage = connect({through.location!r}, {proxy.storage_options!r})
try:
    with storage.writer("a", expected_size={size}) as sink:
        sink.lend(memoryview(bytes({size})))
        print("lent", flush=True)
except KeyboardInterrupt:
    names = [t.name for t in threading.enumerate() if t.name.startswith("ckptstore-")]
    print("ended", names, flush=True)
"""
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        with process:
            deadline = time.monotonic() + 60
            while not proxy.count("PUT", "dante/a") and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.3)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[0]

        assert b"ended []" in said
        assert time.monotonic() - began < 20
        assert moto_server.uploads(through.location) == []

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    def test_large_files_go_both_ways_on_both_sides_of_a_fork(self, moto_server):
        program = f"""
import os
from ckptstore.storage import connect
storage = connect({moto_server.url()!r})
data = bytes(range(256)) * (12 * 4096)

def both(name):
    with storage.writer(name) as sink:
        sink.lend(memoryview(data))
    target = bytearray(len(data))
    with storage.open(name) as reader:
        reader.readinto(0, memoryview(target))
    assert target == data

both("before")
child = os.fork()
both("child" if not child else "parent")
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
        environ = {**os.environ, **moto_server.environ}

        subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=60)


class TestHeld:
    def changed(self, data, place):
        new = bytearray(data)
        new[place] ^= 1
        return new

    def hints(self, data, new):
        return lambda start: (
            Held("a", start) if new[start : start + MIB] == data[start : start + MIB] else None
        )

    def copies(self, proxy):
        return [
            path
            for verb, path, head in proxy.requests
            if "partNumber" in path and any("copy-source" in name.lower() for name in head)
        ]

    def test_only_parts_that_changed_are_sent(self, through, proxy):
        data = random.Random(1).randbytes(5 * PART + 5)
        new = self.changed(data, 2 * PART + 1)
        lend(through, "a", data)
        lend(through, "warm", data, self.hints(data, data))  # The service has been asked.
        proxy.requests.clear()

        lend(through, "b", new, self.hints(data, new))

        assert through.read("b") == new
        assert len(self.copies(proxy)) == 5
        assert proxy.count("PUT", "partNumber") == 6
        assert set(through.list().files) == {"a", "warm", "b"}

    def test_a_service_that_copies_no_ranges_is_sent_the_bytes(self, rclone_server):
        storage = connect(rclone_server.url(), rclone_server.storage_options)
        data = random.Random(2).randbytes(3 * PART)
        lend(storage, "a", data)

        lend(storage, "b", data, lambda start: Held("a", start))

        assert storage.read("b") == data
        assert set(storage.list().files) == {"a", "b"}
        assert rclone_server.uploads(storage.location) == []

    @pytest.mark.parametrize("wrong", ["absent", "short", "fails"])
    def test_a_hint_that_does_not_hold_costs_nothing_but_the_bytes(self, through, proxy, wrong):
        data = random.Random(3).randbytes(2 * PART + 1)
        lend(through, "a", data[: PART + 5] if wrong == "short" else data)
        name = "none" if wrong == "absent" else "a"
        if wrong == "fails":
            lend(through, "warm", data, lambda start: Held("a", start))
            proxy.harm("PUT", "dante/b?", "AccessDenied", times=1)

        lend(through, "b", data, lambda start: Held(name, start))

        assert through.read("b") == data


class TestReading:
    @pytest.fixture
    def filled(self, s3_server):
        storage = connect(s3_server.url(), s3_server.storage_options)
        data = random.Random(5).randbytes(41 * MIB + 7)
        lend(storage, "a", data)
        return storage, data

    def test_several_pieces_are_filled_by_one_request(self, through, proxy):
        data = random.Random(6).randbytes(2 * MIB)
        lend(through, "a", data)
        pieces = [bytearray(size) for size in (1, 0, 700_000, 5, MIB)]

        with through.open("a") as reader:
            reader.readinto_parts(3, [memoryview(piece) for piece in pieces])

        assert b"".join(pieces) == data[3 : 3 + sum(map(len, pieces))]
        assert proxy.count("GET", "dante/a") == 2  # one of them opened it

    def test_threads_may_read_at_once(self, filled):
        storage, data = filled
        target = memoryview(bytearray(len(data)))
        errors = []

        def read(start):
            with contextlib.ExitStack() as stack:
                stack.push(lambda kind, error, _: errors.append(error) if error else None)
                part = target[start : start + 5 * MIB]
                reader.readinto_parts(start, [part[:MIB], part[MIB:]])

        with storage.open("a") as reader:
            work = [threading.Thread(target=read, args=(s,)) for s in range(0, len(data), 5 * MIB)]
            for thread in work:
                thread.start()
            for thread in work:
                thread.join()

        assert errors == []
        assert target == data

    def test_a_large_range_is_read_by_several_requests(self, filled):
        storage, data = filled
        target = bytearray(len(data) - 11)

        with storage.open("a") as reader:
            reader.readinto(11, memoryview(target))

        assert target == data[11:]
        assert threads() == []

    def test_nothing_at_all_can_be_read_too(self, s3_server):
        storage = connect(s3_server.url(), s3_server.storage_options)
        storage.create("a", b"")

        with storage.open("a") as reader:
            reader.readinto(0, memoryview(bytearray()))
            reader.readinto_parts(0, [])

    @pytest.mark.parametrize("size", [300_000, 41 * MIB])
    def test_an_object_that_was_replaced_is_never_read(self, s3_server, size):
        storage = connect(s3_server.url(), s3_server.storage_options)
        lend(storage, "a", bytes(size))
        target = bytearray(size)

        with storage.open("a") as reader:
            storage.delete("a")
            lend(storage, "a", b"x" * size)
            with pytest.raises(NotFoundError, match="replaced while it was read"):
                reader.readinto_parts(0, [memoryview(target)])
            with pytest.raises(NotFoundError, match="replaced while it was read"):
                reader.readinto(0, memoryview(target))

        assert not any(target)
        assert threads() == []

    @pytest.mark.parametrize("action", ["cut reply", "drop", "InternalError", "SlowDown", "noise"])
    def test_a_range_that_fails_is_read_again_and_is_whole(self, through, proxy, action):
        data = random.Random(7).randbytes(20 * MIB)
        lend(through, "a", data)
        target = bytearray(len(data))

        with through.open("a") as reader:
            fault = proxy.harm("GET", "dante/a", action, times=2)
            reader.readinto(0, memoryview(target))

        assert fault.times == 0
        assert target == data

    def test_one_range_that_fails_for_good_ends_the_others(self, through, proxy):
        lend(through, "a", bytes(48 * MIB))

        with through.open("a") as reader:
            proxy.harm("GET", "dante/a", "ExpiredToken", after=1, times=None)
            with pytest.raises(StorageError, match="have expired"):
                reader.readinto(0, memoryview(bytearray(48 * MIB)))

        assert threads() == []


class TestTLS:
    def test_a_certificate_that_is_trusted_serves_both_ways_and_no_payload_is_hashed(self):
        data = random.Random(8).randbytes(20 * MIB)
        with Swallowing({"bucket/x/fed": data}, tls=True) as server:
            options = {**server.storage_options, "config_kwargs": {}}
            storage = connect("s3://bucket/x", options)
            signed = []
            hashed = storage._client

            lend(storage, "a", data)
            hashed.wait(_listen(hashed, signed))
            lend(storage, "b", data)
            target = bytearray(len(data))
            with storage.open("fed") as reader:
                reader.readinto(0, memoryview(target))

            assert storage.entry("a").size == len(data)

        assert target == data
        assert len(signed) == 3
        assert set(signed) == {"UNSIGNED-PAYLOAD"}

    @pytest.mark.parametrize("act", ["lend", "read"])
    def test_a_certificate_that_nobody_trusts_is_told(self, act):
        data = bytes(10 * MIB)
        with Swallowing({"bucket/x/fed": data}, tls=True) as server:
            trusted = {**server.storage_options, "config_kwargs": FEW}
            storage = connect("s3://bucket/x", trusted)
            reader = storage.open("fed")
            # The connections of aiohttp are there; ours are not yet.
            storage._client.wait(_distrust(storage._client))

            acts = {
                "lend": lambda: lend(storage, "a", data),
                "read": lambda: reader.readinto(0, memoryview(bytearray(len(data)))),
            }
            with pytest.raises(StorageError, match="cannot be reached .*certificate was refused"):
                acts[act]()

    def test_verification_that_was_switched_off_is_off(self):
        data = random.Random(9).randbytes(9 * MIB)
        with Swallowing(tls=True) as server:
            options = {**server.storage_options, "client_kwargs": {"verify": False}}
            storage = connect("s3://bucket/x", options)

            lend(storage, "a", data)

            assert storage.entry("a").size == len(data)


class TestWhatCannotBeCarried:
    def test_a_proxy_that_the_user_configured_is_used(self, moto_server, proxy, monkeypatch):
        """aiohttp sends then what our own connections do not know how to."""
        carried = []
        terms_of = s3client.terms_of
        monkeypatch.setattr(
            s3client, "terms_of", lambda *args: carried.append(terms_of(*args)) or carried[-1]
        )
        config = {**FEW, "proxies": {"http": proxy.endpoint}}
        storage = connect(
            moto_server.url(), {**moto_server.storage_options, "config_kwargs": config}
        )
        data = random.Random(10).randbytes(9 * MIB)

        with contextlib.suppress(StorageError):  # The proxy is none for every kind of request.
            lend(storage, "a", data)

        assert set(carried) <= {None}
        assert proxy.requests

    def test_bytes_go_by_aiohttp_where_the_session_is_another(self, s3_server, monkeypatch):
        monkeypatch.setattr(s3client, "terms_of", lambda session, url: None)
        storage = connect(s3_server.url(), s3_server.storage_options)
        data = random.Random(11).randbytes(20 * MIB + 1)
        pieces = [bytearray(MIB), bytearray(len(data) - MIB)]

        lend(storage, "a", data)
        with storage.open("a") as reader:
            reader.readinto_parts(0, [memoryview(piece) for piece in pieces])

        assert b"".join(pieces) == data


async def _listen(client, signed):
    s3 = await client._connection()[0].get_s3("bucket")

    def hear(request, **_):
        signed.append(request.headers["X-Amz-Content-SHA256"].decode())

    s3.meta.events.register("before-send.s3.UploadPart", hear)


async def _distrust(client):
    s3 = await client._connection()[0].get_s3("bucket")
    s3._endpoint.http_session._verify = True
