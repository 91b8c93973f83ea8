"""What is special to S3: conditions, pages, copies, and errors that say what to do."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ckptstore.errors import NotFoundError, StorageError, UnsupportedError
from ckptstore.storage import AlreadyThereError, Listing, UnknownOutcomeError, connect

PART = 8 * 2**20
FEW = {"retries": {"total_max_attempts": 3}}


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
        def write_late():
            with through.writer("a") as sink:
                through.create("a", b"rival")
                sink.write(memoryview(bytes(PART + 1)))

        with pytest.raises(AlreadyThereError, match="'a' in s3://"):
            write_late()

        assert through.read("a") == b"rival"

    def test_a_service_that_refuses_conditions_as_such_is_used_without(
        self, through, proxy, caplog
    ):
        proxy.harm("PUT", "dante/a", action="NotImplemented")
        proxy.harm("POST", "uploadId", action="NotImplemented")

        with through.writer("large") as sink:
            sink.write(memoryview(bytes(PART + 1)))
        through.create("a", b"1")

        assert through.read("a") == b"1"
        assert through.entry("large").size == PART + 1
        assert not through.create_only("a", b"1")
        assert "does not keep two writers apart" in caplog.text


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

        assert paged.holding("", "step-", "manifest.json") == (
            "step-1",
            "step-3",
            "step-5",
            "step-7",
        )

    def test_numbers_of_nine_digits_are_listed_until_two_answers_agree(self, paged, monkeypatch):
        for step in (99_999_998, 99_999_999):
            paged.create(f"step-{step}/manifest.json", b"{}")
        for name in ("a", "b", "z"):
            paged.create(f"step-100000000/{name}", b"")
        real, pages = paged._pages, []

        def between(prefix, **parameters):
            for page in real(prefix, **parameters):
                pages.append(page)
                yield page
                if len(pages) == 1:  # What comes first in the order of letters was read already.
                    paged.create("step-100000000/manifest.json", b"{}")
                    paged.delete("step-99999999/manifest.json")

        paged.create("step-99999999/model.pt", b"")
        monkeypatch.setattr(paged, "_pages", between)

        found = paged.holding("", "step-", "manifest.json")

        assert found == ("step-99999998", "step-100000000")

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

    def test_an_absent_bucket_has_no_time(self, s3_server):
        storage = connect("s3://no-such-bucket-1/dante", s3_server.storage_options)

        with pytest.raises(NotFoundError, match="no bucket 'no-such-bucket-1' at 127.0.0.1"):
            storage.time()

    def test_a_host_that_nobody_knows_is_told_as_that(self):
        options = {"endpoint_url": "http://nowhere.invalid", "key": "k", "secret": "s"}
        storage = connect("s3://bucket/dante", {**options, "config_kwargs": FEW})

        with pytest.raises(StorageError, match="nowhere.invalid cannot be reached .its name is no"):
            storage.list()

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

        with pytest.raises(
            StorageError, match="there are no credentials for 127.*AWS_ACCESS_KEY_ID"
        ):
            storage.list()

    @pytest.mark.slow
    def test_a_server_that_is_down_is_told_within_bounds(self, new_server):
        server = new_server("rclone")
        storage = connect(server.url(), server.storage_options)
        storage.create("a", b"1")
        with storage.open("a") as reader:
            server.stop()
            began = time.monotonic()

            with pytest.raises(StorageError, match=r"127.0.0.1:\d+ cannot be reached.*try again"):
                reader.readinto(0, memoryview(bytearray(1)))

        assert time.monotonic() - began < 20

    def test_a_server_that_goes_down_in_an_upload_fails_it(self, new_server):
        server = new_server("moto")
        storage = connect(server.url(), {**server.storage_options, "config_kwargs": FEW})
        began = time.monotonic()

        def write_until_it_stops():
            with storage.writer("a") as sink:
                sink.write(memoryview(bytes(2 * PART)))
                server.stop()
                sink.write(memoryview(bytes(20 * PART)))

        with pytest.raises(StorageError, match="cannot be reached|did not answer"):
            write_until_it_stops()

        assert time.monotonic() - began < 45

    @pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="nothing stands still here")
    def test_a_server_that_stands_still_is_given_up(self, new_server):
        server = new_server("moto")
        options = {**server.storage_options, "config_kwargs": {"read_timeout": 1, **FEW}}
        storage = connect(server.url(), options)
        storage.create("a", b"1")
        server.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()

        with pytest.raises(UnknownOutcomeError, match="no reply came"):
            storage.replace("a", bytes(100))

        assert time.monotonic() - began < 100

    def test_a_busy_service_is_given_up_at_last(self, through, proxy):
        proxy.harm("HEAD", "", times=99, action="SlowDown")

        with pytest.raises(StorageError, match="is too busy .*; try again later"):
            through.entry("a")

        assert proxy.count("HEAD") == 4

    def test_unknown_options_are_named_without_their_values(self, moto_server):
        options = {**moto_server.storage_options, "no_such_option": "hunter2"}
        storage = connect(moto_server.url(), options)

        with pytest.raises(StorageError, match="no_such_option.*do not fit S3") as caught:
            storage.list()

        assert "hunter2" not in str(caught.value)

    def test_an_object_that_is_gone_ends_a_read(self, s3_server):
        storage = connect(s3_server.url(), s3_server.storage_options)
        storage.create("a", bytes(300_000))  # More than comes along as it is opened.

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
    storage = connect("s3://bucket/dante", proxy.storage_options)

    assert storage.location == "s3://bucket/dante"
    assert proxy.requests == []
