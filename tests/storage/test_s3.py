"""What is special to S3: conditions, parts, lost answers, and errors that say what to do."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from ckptstore.errors import NotFoundError, StorageError, UnsupportedError
from ckptstore.storage import AlreadyThereError, Listing, UnknownOutcomeError, connect

PART = 8 * 2**20


def lose(proxy, method, part, times=1, action="lose"):
    proxy.faults.append(type_of_fault(proxy)(method, part, action, times))


def type_of_fault(proxy):
    return type(proxy).__init__.__globals__["Fault"]


@pytest.fixture
def through(proxy, moto_server):
    """A storage whose requests go through the proxy."""
    return connect(moto_server.url("dante"), proxy.storage_options)


def uploads(server, storage):
    client = server.client()
    bucket = storage.location.split("/")[2]
    found = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    client.close()
    return found


def write(storage, name, size):
    with storage.writer(name, expected_size=size) as sink:
        for start in range(0, size, 2**20):
            sink.write(memoryview(bytes([start % 251]) * min(2**20, size - start)))


class TestConditions:
    def test_a_service_that_keeps_conditions_is_found_out(self, moto_server):
        storage = connect(moto_server.url(), moto_server.storage_options)
        storage.create("a", b"1")

        assert storage.create_only("a", b"1") is True
        assert storage.read("a") == b"1"

    def test_a_service_that_ignores_them_is_told_of_once(self, rclone_server, caplog):
        url = rclone_server.url()
        storage = connect(url, rclone_server.storage_options)
        storage.create("a", b"1")

        answers = [storage.create_only("a", b"1"), storage.create_only("a", b"1")]
        answers.append(connect(url, rclone_server.storage_options).create_only("a", b"1"))

        assert answers == [False, False, False]
        (record,) = caplog.records
        assert "does not keep two writers apart" in record.getMessage()
        assert rclone_server.secret not in record.getMessage()

    def test_such_a_service_cannot_swap_and_keeps_no_probe(self, rclone_server):
        url = rclone_server.url()
        storage = connect(url, rclone_server.storage_options)
        storage.create("a", b"1")

        with pytest.raises(UnsupportedError, match="does not keep If-Match"):
            storage.swap("a", b"1", b"2")

        assert len(rclone_server.keys(url)) == 1
        assert storage.read("a") == b"1"

    def test_the_service_itself_refuses_what_appeared_after_the_look(self, through, proxy):
        with pytest.raises(AlreadyThereError), through.writer("a") as sink:
            through.create("a", b"rival")
            sink.write(memoryview(bytes(PART + 1)))

        assert through.read("a") == b"rival"

    def test_a_service_that_refuses_conditions_as_such_is_used_without(
        self, through, proxy, caplog
    ):
        lose(proxy, "PUT", "dante/a", action="unconditional")
        lose(proxy, "POST", "uploadId", action="unconditional")

        with through.writer("large") as sink:
            sink.write(memoryview(bytes(PART + 1)))
        through.create("a", b"1")

        assert through.read("a") == b"1"
        assert through.entry("large").size == PART + 1
        assert not through.create_only("a", b"1")
        assert "does not keep two writers apart" in caplog.text


class TestUploads:
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
        from ckptstore.storage.s3upload import part_size

        for expected in (0, 1, 70 * 2**30, 5 * 2**40):
            assert part_size(expected) * 9_000 >= expected
        assert part_size(70 * 10**9) == PART
        assert part_size(800 * 10**9) <= 96 * 2**20

    def test_an_exception_leaves_no_parts_on_the_server(self, s3_server):
        url = s3_server.url()
        storage = connect(url, s3_server.storage_options)

        with pytest.raises(ZeroDivisionError), storage.writer("a") as sink:
            sink.write(memoryview(bytes(3 * PART)))
            raise ZeroDivisionError

        assert uploads(s3_server, storage) == []
        assert s3_server.keys(url) == {}

    def test_a_part_that_fails_for_good_ends_the_upload(self, through, proxy, moto_server):
        lose(proxy, "PUT", "partNumber=2", times=99, action="expired")

        with pytest.raises(StorageError, match="credentials for 127.* have expired; renew"):
            write(through, "a", 6 * PART)

        assert uploads(moto_server, through) == []
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
        lose(proxy, "PUT", "partNumber=2", times=99, action="stall")
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
        assert took < 10
        assert uploads(moto_server, through) == []
        assert through.list() == Listing({}, ())


class TestLostAnswers:
    """A repeated request may be refused because of its own first success."""

    @pytest.mark.parametrize("size", [100, 2 * PART])
    def test_a_file_whose_answer_was_lost_is_recognized(self, through, proxy, size):
        lose(proxy, "PUT" if size < PART else "POST", "/dante/a" if size < PART else "uploadId")

        write(through, "a", size)

        assert through.entry("a").size == size

    def test_a_create_whose_answer_was_lost_says_already_there(self, through, proxy):
        lose(proxy, "PUT", "/dante/a")

        with pytest.raises(AlreadyThereError):
            through.create("a", b"mine")

        assert through.read("a") == b"mine"

    def test_a_create_that_is_never_answered_but_arrived_is_done(self, through, proxy):
        # Only the first attempt arrives, and the answers to all of them are lost.
        lose(proxy, "PUT", "/dante/a")
        lose(proxy, "PUT", "/dante/a", times=99, action="drop")

        through.create("a", b"mine")

        assert through.read("a") == b"mine"

    def test_a_create_that_nobody_answers_has_an_unknown_outcome(self, through, proxy):
        lose(proxy, "PUT", "/dante/a", times=99, action="drop")

        with pytest.raises(UnknownOutcomeError, match="may still take effect") as caught:
            through.create("a", b"mine")

        assert caught.value.committed is None

    def test_a_replace_whose_answers_are_all_lost_is_done(self, through, proxy):
        lose(proxy, "PUT", "/dante/a", times=99)

        through.replace("a", b"new")

        assert through.read("a") == b"new"

    def test_a_swap_whose_answer_was_lost_is_a_swap(self, through, proxy):
        through.create("a", b"old")
        assert not through.swap("a", b"other", b"new")
        lose(proxy, "PUT", "/dante/a")

        assert through.swap("a", b"old", b"new")

    def test_a_part_whose_answer_was_lost_is_sent_again(self, through, proxy):
        lose(proxy, "PUT", "partNumber=2")

        write(through, "a", 3 * PART)

        assert through.entry("a").size == 3 * PART
        assert proxy.count("PUT", "partNumber=2") == 2

    @pytest.mark.parametrize("action", ["slow", "conflict", "drop"])
    def test_a_service_that_is_busy_for_a_moment_is_asked_again(self, through, proxy, action):
        lose(proxy, "PUT", "/dante/a", times=2, action=action)
        lose(proxy, "GET", "/dante/a", times=2, action="slow")

        through.create("a", b"1")

        assert through.read("a") == b"1"

    def test_a_range_that_breaks_off_is_read_again(self, through, proxy):
        write(through, "a", 3 * PART)
        target = bytearray(3 * PART)

        with through.open("a") as reader:
            lose(proxy, "GET", "/dante/a", times=2, action="drop")
            reader.readinto(0, memoryview(target))

        assert target == through.read("a")


class TestListings:
    @pytest.fixture
    def paged(self, moto_server):
        """A storage whose listings come in pages of three."""
        options = {**moto_server.storage_options, "s3_additional_kwargs": {"MaxKeys": 3}}
        return connect(moto_server.url(), options)

    def test_all_pages_of_a_listing_are_read(self, paged):
        for number in range(8):
            paged.create(f"{number}", b"")
            paged.create(f"folder-{number}/x", b"")

        listing = paged.list()

        assert list(listing.files) == [f"{number}" for number in range(8)]
        assert listing.folders == tuple(f"folder-{number}" for number in range(8))

    def test_folders_that_hold_a_file_are_found_on_all_pages(self, paged):
        for number in range(8):
            for name in ("a", "b", *(["manifest.json"] if number % 2 else [])):
                paged.create(f"step-{number}/{name}", b"")

        assert paged.holding("", "step-", "manifest.json") == ("step-1", "step-3", "step-5", "step-7")

    def test_a_whole_bucket_is_a_location(self, moto_server):
        storage = connect(f"s3://{moto_server.bucket()}/", moto_server.storage_options)

        storage.create("a/b", b"1")

        assert storage.list().folders == ("a",)
        assert storage.list("a").files.keys() == {"b"}
        assert storage.holding("", "", "b") == ("a",)

    def test_an_object_that_stands_for_a_folder_is_none(self, moto_server):
        url = moto_server.url("dante")
        client = moto_server.client()
        for key in ("dante/", "dante/sub/"):
            client.put_object(Bucket=url.split("/")[2], Key=key, Body=b"")
        client.close()

        storage = connect(url, moto_server.storage_options)

        assert storage.list() == Listing({}, ("sub",))
        assert storage.list("sub") == Listing({}, ())


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
        assert uploads(moto_server, storage) == []

    def test_a_long_copy_whose_last_answer_was_lost_is_recognized(self, through, proxy):
        from ckptstore.storage.s3client import client_for
        from ckptstore.storage.s3transfer import copy_in_parts

        write(through, "a", 2 * PART)
        client = client_for(proxy.storage_options)
        old = {"Bucket": through.location.split("/")[2], "Key": "dante/a"}
        lose(proxy, "POST", "/dante/b?uploadId")

        copy_in_parts(
            client, old, {**old, "Key": "dante/b"}, client.run("head_object", **old), part_size=PART
        )

        assert through.entry("b").size == 2 * PART


class TestErrors:
    def test_an_absent_bucket_is_named_and_not_made(self, s3_server):
        storage = connect("s3://no-such-bucket-1/dante", s3_server.storage_options)

        def finish():
            with storage.writer("a") as sink:
                sink.write(memoryview(b"1"))

        for act in (
            storage.list,
            lambda: storage.holding("", "", "x"),
            lambda: storage.read("a"),
            lambda: storage.create("a", b""),
            lambda: storage.replace("a", b""),
            lambda: write(storage, "a", 2 * PART),
            finish,
        ):
            with pytest.raises(NotFoundError, match="no bucket 'no-such-bucket-1' at 127.0.0.1"):
                act()
        assert storage.entry("a") is None

    def test_a_name_that_no_bucket_can_have_is_absent(self, moto_server):
        storage = connect("s3://not a bucket/dante", moto_server.storage_options)

        with pytest.raises(NotFoundError, match="no bucket 'not a bucket'"):
            storage.list()

    def test_wrong_credentials_are_told_without_showing_them(self, rclone_server):
        url = rclone_server.url()
        options = {**rclone_server.storage_options, "secret": "wrong-secret-42"}
        storage = connect(url, options)

        for act in (
            storage.list,
            lambda: storage.entry("a"),
            lambda: storage.read("a"),
            lambda: storage.create("a", b""),
            lambda: write(storage, "a", 2 * PART),
        ):
            with pytest.raises(StorageError, match="access denied by 127.0.0.1") as caught:
                act()
            assert "wrong-secret-42" not in str(caught.value)
            assert rclone_server.key not in str(caught.value)

    def test_no_credentials_at_all_are_told(self, moto_server):
        storage = connect(moto_server.url(), {"endpoint_url": moto_server.endpoint})

        with pytest.raises(StorageError, match="there are no credentials for 127.*AWS_ACCESS_KEY_ID"):
            storage.list()

    def test_a_server_that_is_down_is_told_within_bounds(self, new_server):
        server = new_server("rclone")
        storage = connect(server.url(), server.storage_options)
        storage.create("a", b"1")
        reader = storage.open("a")
        server.stop()
        began = time.monotonic()

        with pytest.raises(StorageError, match=r"127.0.0.1:\d+ cannot be reached.*try again"):
            storage.read("a")

        assert time.monotonic() - began < 20
        with pytest.raises(StorageError, match="cannot be reached"):
            reader.readinto(0, memoryview(bytearray(1)))

    def test_a_server_that_goes_down_in_an_upload_fails_it(self, new_server):
        server = new_server("moto")
        storage = connect(server.url(), server.storage_options)
        began = time.monotonic()

        with pytest.raises(StorageError, match="cannot be reached|did not answer"):
            with storage.writer("a") as sink:
                sink.write(memoryview(bytes(2 * PART)))
                server.stop()
                sink.write(memoryview(bytes(20 * PART)))

        assert time.monotonic() - began < 45

    def test_a_busy_service_is_given_up_at_last(self, through, proxy):
        lose(proxy, "HEAD", "", times=99, action="slow")

        with pytest.raises(StorageError, match="is too busy .*; try again later"):
            through.entry("a")

        assert proxy.count("HEAD") > 3

    def test_unknown_options_are_named_without_their_values(self, moto_server):
        options = {**moto_server.storage_options, "no_such_option": "hunter2"}
        storage = connect(moto_server.url(), options)

        with pytest.raises(StorageError, match="no_such_option.*do not fit S3") as caught:
            storage.list()

        assert "hunter2" not in str(caught.value)

    def test_an_object_that_is_gone_ends_a_read(self, s3_server):
        storage = connect(s3_server.url(), s3_server.storage_options)
        storage.create("a", b"12345")

        with storage.open("a") as reader:
            storage.delete("a")
            with pytest.raises(NotFoundError, match="a"):
                reader.readinto(0, memoryview(bytearray(3)))


class TestProcesses:
    def test_the_environment_alone_is_enough(self, s3_server):
        url = s3_server.url()
        program = f"from ckptstore.storage import connect; connect({url!r}).create('a', b'1')"

        subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            env={**os.environ, **s3_server.environ},
            check=True,
        )

        assert list(s3_server.keys(url).values()) == [1]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    def test_a_storage_works_on_both_sides_of_a_fork(self, moto_server):
        program = f"""
import os, sys
from ckptstore.storage import connect
storage = connect({moto_server.url()!r})
storage.create("parent", b"1")
child = os.fork()
if not child:
    storage.create("child", storage.read("parent"))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert list(storage.list().files) == ["child", "parent"]
"""
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **moto_server.environ},
            check=True,
            timeout=60,
        )

    def test_an_endpoint_in_the_configuration_file_counts(self, moto_server, tmp_path, monkeypatch):
        from ckptstore.storage.s3client import client_for

        config = tmp_path / "config"
        config.write_text(f"[default]\nendpoint_url = {moto_server.endpoint}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

        assert client_for({}).endpoint == moto_server.endpoint


def test_nothing_is_asked_before_it_is_needed(moto_server, proxy):
    with contextlib.ExitStack():
        storage = connect("s3://bucket/dante", proxy.storage_options)

    assert storage.location == "s3://bucket/dante"
    assert proxy.requests == []
