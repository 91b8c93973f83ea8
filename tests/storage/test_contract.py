"""What `ckptstore.storage.base` promises of looking and reading, on every storage."""

import concurrent.futures
import contextlib
import threading
import time

import pytest

from ckptstore.errors import (
    CorruptionError,
    NotFoundError,
    StorageError,
)
from ckptstore.storage import Entry, Listing


class TestLooking:
    def test_nothing_is_an_empty_folder(self, storage):
        assert storage.list() == Listing({}, ())
        assert storage.list("a/b") == Listing({}, ())
        assert storage.entry("a/b") is None
        assert storage.holding("a", "", "manifest.json") == ()

    def test_a_listing_shows_files_and_folders_of_one_level(self, storage):
        for name in ("b.json", "a.json", "sub/c", "sub/deep/d", "other/e"):
            storage.create(name, b"12345")

        top, sub = storage.list(), storage.list("sub")

        assert list(top.files) == ["a.json", "b.json"]
        assert top.folders == ("other", "sub")
        assert list(sub.files) == ["c"]
        assert sub.folders == ("deep",)
        assert sub.files["c"].name == "sub/c"
        assert sub.files["c"].size == 5

    def test_a_file_whose_name_begins_with_a_dot_is_a_file_like_any_other(self, storage):
        storage.create(".metadata", b"12345")

        assert list(storage.list().files) == [".metadata"]
        assert storage.entry(".metadata").size == 5
        assert storage.read(".metadata") == b"12345"

    def test_a_listing_and_a_look_at_one_file_agree(self, storage):
        storage.create("a/b", b"123")

        assert storage.list("a").files["b"] == storage.entry("a/b")

    def test_a_folder_is_no_file(self, storage):
        storage.create("a/b", b"")

        assert storage.entry("a") is None
        with pytest.raises(NotFoundError):
            storage.read("a")
        with pytest.raises(NotFoundError):
            storage.open("a")

    def test_a_file_is_no_folder(self, storage, connect):
        storage.create("a", b"1")

        with pytest.raises(StorageError, match="a file, not a folder"):
            storage.list("a")
        assert storage.entry("a/b") is None

    def test_a_name_that_starts_alike_is_another(self, connect):
        connect("dante2").create("x", b"")
        connect("dante2/dante").create("y", b"")

        assert connect("dante").list() == Listing({}, ())
        assert connect("dante").holding("", "", "x") == ()

    def test_the_version_changes_when_a_file_is_replaced(self, storage):
        storage.create("a", b"one")
        before = storage.entry("a")

        storage.replace("a", b"two")

        after = storage.entry("a")
        assert before.version is None or before.version != after.version

    def test_folders_that_hold_a_file_are_found_by_prefix(self, storage):
        for step in (5, 10, 15):
            storage.create(f"step-{step:08}/model.pt", b"")
        for folder in ("step-00000005", "step-00000015", "other", "x/step-00000010"):
            storage.create(f"{folder}/manifest.json", b"{}")
        storage.create("step-00000010/deep/manifest.json", b"{}")
        storage.create(".ckptstore/00000001/manifest.json", b"{}")

        assert storage.holding("", "step-", "manifest.json") == ("step-00000005", "step-00000015")
        assert storage.holding(".ckptstore", "", "manifest.json") == ("00000001",)
        assert storage.holding("", "none", "manifest.json") == ()

    def test_folders_come_in_the_order_of_their_numbers_with_the_files_asked_for(self, storage):
        for step in (100_000_000, 99_999_999, 7):
            storage.create(f"step-{step:08}/manifest.json", b"{}")
        storage.create("step-100000000/more", b"123")
        storage.create("step-00000008/more", b"")

        found = storage.held("", "step-", ("manifest.json", "more"))

        assert [*found] == ["step-00000007", "step-99999999", "step-100000000"]
        assert {name: [*files] for name, files in found.items()} == {
            "step-00000007": ["manifest.json"],
            "step-99999999": ["manifest.json"],
            "step-100000000": ["manifest.json", "more"],
        }
        assert found["step-100000000"]["more"] == storage.entry("step-100000000/more")
        assert storage.holding("", "step-", "manifest.json") == tuple(found)

    def test_a_writer_that_replaces_folders_is_never_seen_with_none(self, storage):
        storage.create("gen/00000000/manifest.json", b"{}")
        done = threading.Event()
        seen = []

        def look():
            while not done.is_set():
                seen.append(storage.holding("gen", "", "manifest.json"))

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            looking = pool.submit(look)
            for number in range(1, 30):
                storage.create(f"gen/{number:08}/manifest.json", b"{}")
                storage.delete(f"gen/{number - 1:08}/manifest.json")
            done.set()
            looking.result()

        assert () not in seen

    def test_the_time_is_a_services_own_and_asking_for_it_writes_nothing(self, storage):
        said = storage.time()

        is_service = storage.location.startswith("s3://")
        assert (said is not None) == is_service
        assert said is None or abs(said - time.time()) < 600
        assert storage.list() == Listing({}, ())


class TestReading:
    def test_what_was_written_is_read(self, storage):
        storage.create("a", b"0123456789")

        assert storage.read("a") == b"0123456789"
        assert storage.read("a", limit=4) == b"0123"
        assert storage.read("a", limit=0) == b""
        assert storage.read("a", limit=100) == b"0123456789"

    def test_an_empty_file_is_a_file(self, storage):
        storage.create("a", b"")

        assert storage.entry("a").size == 0
        assert storage.read("a") == b""
        assert storage.read("a", limit=10) == b""
        with storage.open("a") as reader:
            assert reader.size == 0
            reader.readinto(0, memoryview(bytearray()))

    def test_an_absent_file_is_not_found(self, storage):
        storage.create("a", b"")

        for name in ("b", "x/y/z"):
            with pytest.raises(NotFoundError, match=name):
                storage.read(name)
            with pytest.raises(NotFoundError, match=name):
                storage.open(name)
            with pytest.raises(NotFoundError, match=name):
                storage.copy(name, "c")

    def test_any_range_can_be_read_by_several_threads(self, storage):
        data = bytes(range(256)) * 1000
        storage.create("a", data)

        with storage.open("a") as reader, concurrent.futures.ThreadPoolExecutor(4) as pool:

            def part(start):
                target = bytearray(1000)
                reader.readinto(start, memoryview(target))
                return bytes(target) == data[start : start + 1000]

            assert all(pool.map(part, range(0, 255_000, 5_100)))
            assert reader.size == len(data)

    def test_a_range_past_the_end_is_damage(self, storage):
        storage.create("a", b"12345")

        with storage.open("a") as reader, pytest.raises(CorruptionError, match="after 5 bytes"):
            reader.readinto(2, memoryview(bytearray(4)))

    def test_a_file_that_is_replaced_while_it_is_read_is_never_mixed(self, storage):
        storage.create("a", b"old old old")
        target = bytearray(3)

        with storage.open("a") as reader:
            storage.replace("a", b"new new new")
            with contextlib.suppress(NotFoundError):
                reader.readinto(0, memoryview(target))

        # fsspec has nothing to pin a file with: the general way reads what is there.
        assert bytes(target) in (b"old", b"new", bytes(3))


def test_an_entry_is_plain_data(storage):
    storage.create("a", b"123")

    entry = storage.entry("a")

    assert entry == Entry("a", 3, entry.modified, entry.version)
    assert entry.modified > 1_200_000_000


def test_a_location_is_for_people(storage):
    assert storage.location.endswith("run [a-z]* 100% #1 日本")
