"""What S3 storage does with large files, and with answers that are lost."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from ckptstore.errors import CkptstoreError, StorageError, UnsupportedError
from ckptstore.storage import (
    AlreadyThereError,
    Listing,
    UnknownOutcomeError,
    connect,
    s3client,
)

PART = 8 * 2**20
FEW = {"retries": {"total_max_attempts": 3}}


def write(storage, name, size):
    with storage.writer(name, expected_size=size) as sink:
        for start in range(0, size, 2**20):
            sink.write(memoryview(bytes([start % 251]) * min(2**20, size - start)))


class TestUploads:
    def test_checksums_that_botocore_adds_for_aws_go_with_the_parts(self, moto_server):
        settings = {
            "request_checksum_calculation": "when_supported",
            "response_checksum_validation": "when_supported",
        }
        options = {**moto_server.storage_options, "config_kwargs": settings}
        storage = connect(moto_server.url(), options)

        write(storage, "a", 3 * PART)
        storage.create("b", b"1")

        assert storage.entry("a").size == 3 * PART
        assert storage.read("b") == b"1"

    def test_several_parts_are_on_their_way_at_once(self, through, proxy):
        write(through, "a", 5 * PART)

        assert proxy.count("PUT", "partNumber") == 5
        assert proxy.most_at_once > 1

    @pytest.mark.parametrize("size", [0, 1, PART - 1, PART])
    def test_a_small_file_is_one_request(self, through, proxy, size):
        write(through, "a", size)

        assert proxy.count("PUT") == 1
        assert proxy.count("POST") == 0
        assert through.entry("a").size == size

    def test_parts_of_a_huge_file_are_few_enough_and_bounded(self):
        from ckptstore.storage.s3parts import part_size

        for expected in (0, 1, 70 * 2**30, 5 * 2**40):
            assert part_size(expected) * 9_000 >= expected
        assert part_size(80 * 2**20) == PART
        assert part_size(800 * 10**9) <= 96 * 2**20

    def test_an_exception_leaves_no_parts_on_the_server(self, s3_server):
        url = s3_server.url()
        storage = connect(url, s3_server.storage_options)

        def fail():
            with storage.writer("a") as sink:
                sink.write(memoryview(bytes(3 * PART)))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()

        assert s3_server.uploads(storage.location) == []
        assert s3_server.keys(url) == {}

    def test_a_part_that_fails_for_good_ends_the_upload(self, through, proxy, moto_server):
        proxy.harm("PUT", "partNumber=2", times=99, action="ExpiredToken")

        with pytest.raises(StorageError, match="credentials for 127.* have expired; renew"):
            write(through, "a", 6 * PART)

        assert moto_server.uploads(through.location) == []
        assert through.list() == Listing({}, ())

    def test_memory_is_bounded_however_large_the_file_is(self, moto_server):
        url = moto_server.url()
        program = f"""
import resource
from ckptstore.storage import connect
storage = connect({url!r})
storage.create("first", b"x" * {PART})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
block = memoryview(bytes(2**20))
with storage.writer("large") as sink:
    for _ in range(300):
        sink.write(block)
storage.delete("large")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
        environ = {**os.environ, **moto_server.environ}

        done = subprocess.run(
            [sys.executable, "-c", program], env=environ, check=True, capture_output=True
        )

        assert int(done.stdout) < 128

    def test_an_interrupt_ends_an_upload_at_once_and_leaves_nothing(
        self, through, proxy, moto_server
    ):
        proxy.harm("PUT", "partNumber=2", times=99, action="stall")
        program = f"""
from ckptstore.storage import connect
storage = connect({through.location!r}, {proxy.storage_options!r})
block = memoryview(bytes({PART}))
with storage.writer("a") as sink:
    for number in range(100):
        sink.write(block)
        print(number, flush=True)
"""
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        with process:
            while b"5" not in process.stdout.readline():
                pass
            time.sleep(0.2)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
        took = time.monotonic() - began

        assert process.returncode in (1, -signal.SIGINT)
        assert took < 20
        assert moto_server.uploads(through.location) == []
        assert through.list() == Listing({}, ())


class TestLostAnswers:
    """A repeated request may be refused because of its own first success."""

    @pytest.mark.parametrize("size", [100, 2 * PART])
    def test_a_file_whose_answer_was_lost_is_recognized(self, through, proxy, size):
        proxy.harm("PUT" if size < PART else "POST", "/dante/a" if size < PART else "uploadId")

        write(through, "a", size)

        assert through.entry("a").size == size

    def test_a_create_whose_answer_was_lost_says_already_there(self, through, proxy):
        proxy.harm("PUT", "/dante/a")

        with pytest.raises(AlreadyThereError):
            through.create("a", b"mine")

        assert through.read("a") == b"mine"

    def test_a_create_that_is_never_answered_but_arrived_is_done(self, through, proxy):
        # Only the first attempt arrives, and the answers to all of them are lost.
        proxy.harm("PUT", "/dante/a")
        proxy.harm("PUT", "/dante/a", times=99, action="drop")

        through.create("a", b"mine")

        assert through.read("a") == b"mine"

    def test_a_create_that_nobody_answers_has_an_unknown_outcome(self, through, proxy):
        proxy.harm("PUT", "/dante/a", times=99, action="drop")

        with pytest.raises(UnknownOutcomeError, match="may still take effect") as caught:
            through.create("a", b"mine")

        assert caught.value.committed is None

    def test_a_replace_whose_answers_are_all_lost_is_done(self, through, proxy):
        proxy.harm("PUT", "/dante/a", times=99)

        through.replace("a", b"new")

        assert through.read("a") == b"new"

    def test_a_swap_whose_answer_was_lost_is_a_swap(self, through, proxy):
        through.create("a", b"old")
        assert not through.swap("a", b"other", b"new")
        proxy.harm("PUT", "/dante/a")

        assert through.swap("a", b"old", b"new")

    def test_a_part_whose_answer_was_lost_is_sent_again(self, through, proxy):
        proxy.harm("PUT", "partNumber=2")

        write(through, "a", 3 * PART)

        assert through.entry("a").size == 3 * PART
        assert proxy.count("PUT", "partNumber=2") == 2

    @pytest.mark.parametrize("action", ["SlowDown", "ConditionalRequestConflict", "drop"])
    def test_a_service_that_is_busy_for_a_moment_is_asked_again(self, through, proxy, action):
        proxy.harm("PUT", "/dante/a", times=2, action=action)
        proxy.harm("GET", "/dante/a", times=2, action="SlowDown")

        through.create("a", b"1")

        assert through.read("a") == b"1"

    def test_a_service_that_asks_for_fewer_requests_is_asked_for_minutes(
        self, moto_server, proxy, monkeypatch, caplog
    ):
        monkeypatch.setattr(s3client, "_LONGEST_WAIT", 0.01)
        patient = {**proxy.storage_options, "config_kwargs": {}}
        storage = connect(moto_server.url("dante"), patient)
        storage.create("a", b"1")
        proxy.harm("GET", "/dante/a", times=30, action="SlowDown")
        proxy.harm("HEAD", "/dante/a", times=30, action="SlowDown")

        assert storage.read("a") == b"1"
        assert storage.entry("a").size == 1, "a HEAD is only told 503"

        told = [record.getMessage() for record in caplog.records]
        assert [text for text in told if "asks for fewer requests" in text] == [
            f"{proxy.endpoint} asks for fewer requests (SlowDown); they are sent again"
        ]
        monkeypatch.setattr(s3client, "_GIVE_UP_SLOW_DOWN", 0.3)
        proxy.harm("GET", "/dante/a", times=None, action="SlowDown")
        with pytest.raises(StorageError, match="is too busy .*; try again later"):
            storage.read("a")

    def test_a_service_that_fails_is_asked_eight_times(self, moto_server, proxy, monkeypatch):
        monkeypatch.setattr(s3client, "_LONGEST_WAIT", 0.01)
        storage = connect(moto_server.url(), {**proxy.storage_options, "config_kwargs": {}})
        proxy.harm("GET", "", times=None, action="InternalError")

        with pytest.raises(StorageError, match="did not answer as it should"):
            storage.list("")

        assert proxy.count("GET") == 8

    @pytest.mark.parametrize("size", [PART, 3 * PART], ids=["one request", "several"])
    def test_an_interrupt_ends_reads_in_other_threads_at_once(self, through, proxy, size):
        write(through, "a", 4 * PART)
        target = memoryview(bytearray(size))

        with through.open("a") as reader, ThreadPoolExecutor(1) as pool:
            proxy.harm("GET", "/dante/a", times=None, action="stall")
            reading = pool.submit(reader.readinto, 0, target)
            while not proxy.count("GET", "/dante/a") > 1:
                time.sleep(0.01)
            reader.interrupt()
            with pytest.raises((CkptstoreError, CancelledError)):
                reading.result(timeout=30)  # The server itself would be waited for twice as long.
            with pytest.raises((CkptstoreError, CancelledError)):
                reader.readinto(0, target)

    def test_a_range_that_breaks_off_is_read_again(self, through, proxy):
        write(through, "a", 3 * PART)
        target = bytearray(3 * PART)

        with through.open("a") as reader:
            proxy.harm("GET", "/dante/a", times=2, action="drop")
            reader.readinto(0, memoryview(target))

        assert target == through.read("a")


class TestCopies:
    def test_a_long_object_is_copied_in_parts(self, moto_server):
        from ckptstore.storage.s3client import client_for
        from ckptstore.storage.s3transfer import copy_in_parts

        url = moto_server.url("dante")
        storage = connect(url, moto_server.storage_options)
        write(storage, "a", 3 * PART)
        client = client_for(moto_server.storage_options)
        old = {"Bucket": url.split("/")[2], "Key": "dante/a"}
        new = {**old, "Key": "dante/b"}
        head = client.run("head_object", **old)

        copy_in_parts(client, old, new, head, part_size=5 * 2**20)

        assert storage.read("b") == storage.read("a")
        assert moto_server.uploads(storage.location) == []

    def test_a_long_copy_whose_last_answer_was_lost_is_recognized(self, through, proxy):
        from ckptstore.storage.s3client import client_for
        from ckptstore.storage.s3transfer import copy_in_parts

        write(through, "a", 2 * PART)
        client = client_for(proxy.storage_options)
        old = {"Bucket": through.location.split("/")[2], "Key": "dante/a"}
        proxy.harm("POST", "/dante/b?uploadId")

        copy_in_parts(
            client, old, {**old, "Key": "dante/b"}, client.run("head_object", **old), part_size=PART
        )

        assert through.entry("b").size == 2 * PART

    def test_a_copy_to_a_new_name_whose_last_answer_was_lost_is_ours(self, through, proxy):
        write(through, "a", PART)
        proxy.harm("POST", "/dante/b?uploadId")

        through.copy("a", "b", only_new=True)

        assert through.read("b") == through.read("a")

    def test_a_rival_that_comes_before_the_last_request_keeps_its_name(
        self, through, proxy, moto_server
    ):
        write(through, "a", PART)
        beside = connect(through.location, moto_server.storage_options)
        held = proxy.harm("POST", "/dante/b?uploadId", action="late")
        with ThreadPoolExecutor(1) as pool:
            copying = pool.submit(through.copy, "a", "b", only_new=True)
            while held.times:
                time.sleep(0.01)
            beside.create("b", b"the rival's")
            proxy.release()

            with pytest.raises(AlreadyThereError, match="b.*already there"):
                copying.result()

        assert beside.read("b") == b"the rival's"
        assert moto_server.uploads(through.location) == []

    @pytest.mark.parametrize("action", ["AccessDenied", "NotImplemented"])
    def test_where_copies_are_refused_whoever_asked_may_send_the_bytes(
        self, through, proxy, moto_server, action
    ):
        write(through, "a", PART)
        through.composes()
        proxy.harm("PUT", "/dante/b?", action=action)

        with pytest.raises(UnsupportedError, match="b.*is not copied"):
            through.copy("a", "b", only_new=True)

        assert through.list().files.keys() == {"a"}
        assert moto_server.uploads(through.location) == []

    def test_what_is_sent_with_less_requests_is_not_copied(self, through, proxy):
        through.create("a", b"small")

        with pytest.raises(UnsupportedError, match="sent with less requests"):
            through.copy("a", "b", only_new=True)
