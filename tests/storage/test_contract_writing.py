"""What `ckptstore.storage.base` promises of writing, on every storage."""

import concurrent.futures
import contextlib
import hashlib
import threading

import pytest

from ckptstore.errors import (
    ConflictError,
    NotFoundError,
    UnsafeError,
    UnsupportedError,
)
from ckptstore.storage import AlreadyThereError, Listing

HARD_NAMES = [
    "with space",
    "run[1]",
    "a*b",
    "what?",
    "100%41",
    "#1+2&3=4",
    "ä日本🙂",
    "quote'\"quote",
    "~tilde",
    "$HOME",
    "-rf",
    ".hidden",
    "x::y",
    "{a,b}",
    "trailing.",
]


def write_and_raise(storage, name, data, error):
    with storage.writer(name) as sink:
        sink.write(memoryview(data))
        raise error


def swaps(storage):
    try:
        storage.swap("absent", b"", b"")
    except UnsupportedError:
        return False
    return True


class TestCreating:
    def test_what_is_there_is_never_replaced(self, storage):
        storage.create("a/b", b"first")

        with pytest.raises(AlreadyThereError, match=r"b.*already there"):
            storage.create("a/b", b"second")
        with (
            pytest.raises(AlreadyThereError, match=r"b.*already there"),
            storage.writer("a/b") as sink,
        ):
            sink.write(memoryview(b"third"))

        assert storage.read("a/b") == b"first"
        assert storage.list("a").files.keys() == {"b"}

    def test_of_eight_creators_one_wins(self, storage):
        storage.create("probe", b"x")
        if not storage.create_only("probe", b"x"):
            pytest.skip("this storage takes one writer at a time, and says so")
        start = threading.Barrier(8)

        def create(number):
            start.wait()
            try:
                storage.create("manifest.json", b"%d" % number)
            except ConflictError:
                return None
            return b"%d" % number

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            won = [mine for mine in pool.map(create, range(8)) if mine is not None]

        assert won == [storage.read("manifest.json")]
        assert storage.list().files.keys() == {"probe", "manifest.json"}

    def test_of_two_writers_one_wins(self, storage):
        storage.create("probe", b"x")
        if not storage.create_only("probe", b"x"):
            pytest.skip("this storage takes one writer at a time, and says so")

        won = []

        def write(data):
            with storage.writer("a") as sink:
                sink.write(memoryview(data))
                if data == b"first":
                    with contextlib.suppress(AlreadyThereError):
                        write(b"second")
            won.append(data)

        with contextlib.suppress(AlreadyThereError):
            write(b"first")

        assert won == [storage.read("a")]
        assert storage.list().files.keys() == {"probe", "a"}

    def test_hard_names_are_taken_literally(self, storage):
        for number, name in enumerate(HARD_NAMES):
            storage.create(f"{name}/{name}", b"%d" % number)

        assert storage.list().folders == tuple(sorted(HARD_NAMES))
        for number, name in enumerate(HARD_NAMES):
            assert storage.list(name).files.keys() == {name}
            assert storage.holding("", name, name) == (name,)
            assert storage.read(f"{name}/{name}") == b"%d" % number
            storage.copy(f"{name}/{name}", f"{name}/copy")
            storage.delete(f"{name}/{name}")
            assert storage.list(name).files.keys() == {"copy"}
        assert storage.list().folders == tuple(sorted(HARD_NAMES))

    @pytest.mark.parametrize("name", ["../x", "/x", "a/../x", "a//x", "", ".", "a/", "a\0b"])
    def test_a_name_that_leads_elsewhere_is_refused(self, storage, name):
        for act in (
            lambda: storage.create(name, b""),
            lambda: storage.read(name),
            lambda: storage.delete(name),
            lambda: storage.copy(name, "x"),
        ):
            with pytest.raises(UnsafeError, match="not a name below"):
                act()

    def test_half_a_surrogate_pair_is_in_no_name(self, storage):
        for act in (
            lambda: storage.create("a\ud800", b""),
            lambda: storage.read("a\ud800"),
            lambda: storage.delete("a/\ud800"),
            lambda: storage.copy("\ud800", "a"),
            lambda: storage.list("a\ud800"),
        ):
            with pytest.raises(UnsafeError, match="a character that no name can have"):
                act()


class TestWriter:
    def test_a_large_file_arrives_in_parts(self, storage):
        pieces = [bytes([number]) * (5 * 2**20 + number) for number in range(8)]
        expected = hashlib.sha256(b"".join(pieces)).hexdigest()

        with storage.writer("a/large.pt", expected_size=sum(map(len, pieces))) as sink:
            for piece in pieces:
                sink.write(memoryview(piece))

        assert storage.entry("a/large.pt").size == sum(map(len, pieces))
        with storage.open("a/large.pt") as reader:
            target = bytearray(reader.size)
            reader.readinto(0, memoryview(target))
        assert hashlib.sha256(target).hexdigest() == expected

    def test_memory_may_be_reused_as_soon_as_it_was_written(self, storage):
        buffer = bytearray(3 * 2**20)

        with storage.writer("a") as sink:
            for number in range(10):
                buffer[:] = bytes([number]) * len(buffer)
                sink.write(memoryview(buffer))
            buffer[:] = b"\xff" * len(buffer)

        assert set(storage.read("a")) == set(range(10))

    def test_elements_of_any_kind_are_bytes(self, storage):
        with storage.writer("a") as sink:
            sink.write(memoryview(b"12345678").cast("Q"))
            sink.write(memoryview(b"1234").cast("B", (2, 2)))
            sink.write(memoryview(b""))

        assert storage.read("a") == b"123456781234"

    def test_an_empty_file_can_be_written(self, storage):
        with storage.writer("a"):
            pass

        assert storage.entry("a").size == 0

    @pytest.mark.parametrize("size", [10, 20 * 2**20])
    def test_an_exception_leaves_nothing(self, storage, size):
        with pytest.raises(KeyboardInterrupt):
            write_and_raise(storage, "new/a", bytes(size), KeyboardInterrupt())

        assert storage.entry("new/a") is None
        assert storage.list("new") == Listing({}, ())
        assert storage.list().files == {}

    def test_what_an_exception_took_back_can_be_written_again(self, storage):
        with pytest.raises(ZeroDivisionError):
            write_and_raise(storage, "a", b"1", ZeroDivisionError())

        with storage.writer("a") as sink:
            sink.write(memoryview(b"2"))

        assert storage.read("a") == b"2"

    def test_an_error_of_the_caller_keeps_its_kind(self, storage):
        with pytest.raises(PermissionError, match="of the caller"):
            write_and_raise(storage, "a", b"1", PermissionError("of the caller"))

    def test_several_files_can_be_written_at_once(self, storage):
        def write(number):
            with storage.writer(f"many/{number}") as sink:
                sink.write(memoryview(bytes([number]) * 100))

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(24)))

        assert len(storage.list("many").files) == 24
        assert storage.read("many/7") == bytes([7]) * 100


class TestReplacing:
    def test_a_file_is_replaced_or_made(self, storage):
        storage.replace("a/b", b"one")
        storage.replace("a/b", b"three")

        assert storage.read("a/b") == b"three"
        assert storage.list("a").files.keys() == {"b"}

    def test_a_swap_needs_what_is_expected(self, storage):
        storage.create("a", b"one")
        if not swaps(storage):
            with pytest.raises(UnsupportedError, match="cannot replace a file on condition"):
                storage.swap("a", b"one", b"two")
            assert storage.list().files.keys() == {"a"}
            return

        assert not storage.swap("a", b"two", b"three")
        assert storage.read("a") == b"one"
        assert storage.swap("a", b"one", b"two")
        assert storage.read("a") == b"two"
        assert not storage.swap("absent", b"", b"two")
        assert storage.list().files.keys() == {"a"}
        assert storage.list().folders == ()

    def test_of_eight_swaps_one_wins(self, storage):
        storage.create("a", b"old")
        if not swaps(storage):
            pytest.skip("this storage has no swap, and says so")
        start = threading.Barrier(8)

        def swap(number):
            start.wait()
            return storage.swap("a", b"old", b"%d" % number)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            won = [number for number, mine in enumerate(pool.map(swap, range(8))) if mine]

        assert [b"%d" % number for number in won] == [storage.read("a")]


class TestCopyingAndDeleting:
    def test_a_copy_has_the_same_bytes_and_outlives_its_source(self, storage):
        storage.create("gen/1/model-x.pt", b"weights")

        storage.copy("gen/1/model-x.pt", "model.pt")
        storage.delete("gen/1/model-x.pt")

        assert storage.read("model.pt") == b"weights"
        assert storage.list() == Listing({"model.pt": storage.entry("model.pt")}, ())

    def test_a_copy_replaces_what_is_there_and_can_be_repeated(self, storage):
        storage.create("new", b"new")
        storage.create("view", b"old")

        for _ in range(3):
            storage.copy("new", "view")
        storage.copy("new", "new")

        assert storage.read("view") == storage.read("new") == b"new"
        assert storage.list().files.keys() == {"new", "view"}

    def test_a_copy_to_a_name_that_is_to_be_new_replaces_nothing(self, storage):
        with storage.writer("a") as sink:
            sink.write(memoryview(bytes(5 * 2**20 + 1)))
        storage.create("c", b"another's")
        storage.create_only("c", b"another's")  # What a service keeps is known from here on.

        storage.copy("a", "b", only_new=True)

        for taken in ("b", "c"):
            with pytest.raises(AlreadyThereError, match=f"{taken}.*already there"):
                storage.copy("a", taken, only_new=True)
        with pytest.raises(NotFoundError):
            storage.copy("absent", "d", only_new=True)
        assert storage.read("b") == storage.read("a")
        assert storage.read("c") == b"another's"
        assert storage.list().files.keys() == {"a", "b", "c"}

    def test_replacing_a_copy_leaves_its_source(self, storage):
        storage.create("a", b"source")
        storage.copy("a", "b")

        storage.replace("b", b"edited")

        assert storage.read("a") == b"source"

    def test_deleting_what_is_absent_is_no_error(self, storage):
        storage.create("a/b", b"")

        storage.delete("x")
        storage.delete("x/y/z")
        storage.delete("a/b")
        storage.delete("a/b")

        assert storage.list() == Listing({}, ())

    def test_a_folder_goes_with_its_last_file_and_not_before(self, storage):
        storage.create("a/b/1", b"")
        storage.create("a/b/2", b"")

        storage.delete("a/b/1")
        assert storage.list("a").folders == ("b",)
        storage.delete("a/b/2")
        assert storage.list().folders == ()

    def test_folders_may_go_while_others_write_into_them(self, storage):
        def churn(number):
            for turn in range(8):
                storage.create(f"shared/folder/{number}-{turn}", b"1")
                storage.delete(f"shared/folder/{number}-{turn}")

        if "dir://" in storage.location:
            pytest.skip("fsspec's folders take one writer at a time")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(churn, range(4)))

        assert storage.list("shared/folder") == Listing({}, ())

    def test_flushing_is_always_allowed(self, storage):
        storage.create("a/b", b"", durable=False)

        storage.flush("")
        storage.flush("a")
        storage.flush("absent")


class TestWhole:
    def test_it_is_written_as_by_a_writer(self, storage):
        data = bytes(range(256)) * 5000
        with storage.whole("a/b", expected_size=len(data)) as sink:
            sink.write(memoryview(data[:1000]))
            sink.lend(memoryview(data)[1000:])

        assert storage.read("a/b") == data
        assert storage.list("a").files.keys() == {"b"}

    def test_nobody_sees_a_part_of_it(self, storage):
        if type(storage).__name__ == "GeneralStorage":
            pytest.skip("fsspec shows what it shows")
        with storage.whole("a") as sink:
            sink.write(memoryview(bytes(10 * 2**20)))
            assert storage.entry("a") is None

        assert storage.entry("a").size == 10 * 2**20

    def test_what_is_there_is_never_replaced(self, storage):
        storage.create("a/b", b"first")

        with (
            pytest.raises(AlreadyThereError, match=r"b.*already there"),
            storage.whole("a/b") as sink,
        ):
            sink.write(memoryview(b"second"))

        assert storage.read("a/b") == b"first"
        assert storage.list("a").files.keys() == {"b"}

    def test_what_comes_meanwhile_is_not_replaced_either(self, storage):
        storage.create("probe", b"x")
        if not storage.create_only("probe", b"x"):
            pytest.skip("this storage takes one writer at a time, and says so")

        def write():
            with storage.whole("a") as sink:
                sink.write(memoryview(b"second"))
                storage.create("a", b"first")

        with pytest.raises(AlreadyThereError, match="a.*already there"):
            write()

        assert storage.read("a") == b"first"
        assert storage.list().files.keys() == {"probe", "a"}

    @pytest.mark.parametrize("size", [1, 20 * 2**20])
    def test_an_exception_leaves_nothing(self, storage, size):
        def write():
            with storage.whole("new/a") as sink:
                sink.write(memoryview(bytes(size)))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write()

        assert storage.list("new") == Listing({}, ())
        assert storage.list().files == {}
