"""What is special to local disk: durability, permissions, errors of the system."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from ckptstore.errors import NotFoundError, StorageError
from ckptstore.storage import Listing, connect

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX only")


@pytest.fixture
def storage(tmp_path):
    return connect(tmp_path / "dante")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "dante"


@pytest.fixture
def calls(monkeypatch):
    """What was synced, linked and renamed, in order; the calls themselves go through."""
    made = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def record_fsync(descriptor):
        fsync(descriptor)
        made.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))

    def record_link(source, target, **options):
        link(source, target, **options)
        made.append(("name", os.fspath(target)))

    def record_replace(source, target):
        replace(source, target)
        made.append(("name", os.fspath(target)))

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "link", record_link)
    monkeypatch.setattr(os, "replace", record_replace)
    return made


def write(storage, name, data, **options):
    with storage.writer(name, **options) as sink:
        sink.write(memoryview(data))


def write_whole(storage, name, data):
    with storage.whole(name) as sink:
        sink.write(memoryview(data))


class TestDurable:
    pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")

    @pytest.mark.parametrize("act", ["create", "replace"])
    def test_a_file_is_on_disk_before_it_has_its_name_and_its_folders_after(
        self, storage, root, calls, act
    ):
        getattr(storage, act)("gen/1/manifest.json", b"{}")

        named = calls.index(("name", str(root / "gen/1/manifest.json")))
        before, after = calls[:named], [path for verb, path in calls[named:] if verb == "sync"]
        assert any(verb == "sync" and "/.tmp-" in path for verb, path in before)
        assert set(after) >= {str(root / "gen/1"), str(root / "gen"), str(root), str(root.parent)}

    def test_a_written_file_and_its_folders_are_on_disk(self, storage, root, calls):
        write(storage, "gen/model.pt", b"1")

        synced = [path for verb, path in calls if verb == "sync"]
        assert synced[0] == str(root / "gen/model.pt")
        assert {str(root / "gen"), str(root), str(root.parent)} <= set(synced)

    def test_a_whole_file_is_on_disk_before_it_has_its_name_and_its_folders_after(
        self, storage, root, calls
    ):
        with storage.whole("old/dante.pt") as sink:
            sink.write(memoryview(b"1"))

        named = calls.index(("name", str(root / "old/dante.pt")))
        before, after = calls[:named], [path for verb, path in calls[named:] if verb == "sync"]
        assert any(verb == "sync" and "/.tmp-" in path for verb, path in before)
        assert set(after) >= {str(root / "old"), str(root), str(root.parent)}
        assert os.listdir(root / "old") == ["dante.pt"]

    def test_a_copy_and_a_swap_are_on_disk(self, storage, root, calls):
        storage.create("gen/a", b"1")
        del calls[:]

        storage.copy("gen/a", "a")
        assert ("sync", str(root)) in calls[calls.index(("name", str(root / "a"))) :]
        storage.swap("a", b"1", b"2")
        assert calls[-1] == ("sync", str(root))

    def test_flushing_makes_bytes_and_names_of_a_folder_durable(self, storage, root, calls):
        write(storage, "gen/a", b"1", durable=False)
        write(storage, "gen/b", b"2", durable=False)
        write(storage, "gen/below/c", b"3", durable=False)
        (root / "gen" / "mine").symlink_to(root / "gen" / "below" / "c")
        (root / "gen" / "gone").symlink_to(root / "nowhere")
        assert calls == []

        storage.flush("gen")

        synced = [path for _, path in calls]
        assert set(synced[:2]) == {str(root / "gen/a"), str(root / "gen/b")}
        assert {str(root / "gen"), str(root)} <= set(synced[2:])
        assert str(root / "gen/below/c") not in synced

    def test_flushing_what_vanishes_or_never_was_is_no_error(self, storage, root, monkeypatch):
        storage.create("gen/a", b"1")
        scan = os.scandir

        def and_removed(folder):
            found = scan(folder)
            (root / "gen" / "a").unlink()
            return found

        monkeypatch.setattr(os, "scandir", and_removed)
        storage.flush("gen")
        monkeypatch.undo()

        storage.flush("never/was")

    def test_a_flush_that_the_disk_refuses_is_told(self, storage, monkeypatch):
        storage.create("gen/a", b"1")

        def refuse(descriptor):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match="cannot sync .*input/output error"):
            storage.flush("gen")

    def test_nothing_is_synced_where_it_is_not_asked_for(self, storage, calls):
        storage.create("a", b"1", durable=False)
        storage.replace("a", b"2", durable=False)
        storage.swap("a", b"2", b"3", durable=False)
        storage.copy("a", "b", durable=False)

        assert [path for verb, path in calls if verb == "sync"] == []


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_what_umask_leaves(storage, root, mask):
    before = os.umask(mask)
    try:
        storage.create("gen/created", b"1")
        storage.replace("gen/replaced", b"1")
        write(storage, "gen/written", b"1")
        storage.copy("gen/created", "copied")
        storage.swap("gen/replaced", b"1", b"2")
    finally:
        os.umask(before)

    for path in (*(root / "gen").iterdir(), root / "copied"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((root / "gen").stat().st_mode) == 0o777 & ~mask


class TestTogether:
    def test_swaps_of_several_processes_lose_nothing(self, storage, root):
        storage.create("count", b"0")
        program = f"""
from ckptstore.storage import connect
storage = connect({str(root)!r})
done = 0
while done < 60:
    old = storage.read("count")
    done += storage.swap("count", old, b"%d" % (int(old) + 1), durable=False)
"""
        processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]

        assert [process.wait() for process in processes] == [0, 0, 0]
        assert storage.read("count") == b"180"
        assert os.listdir(root) == ["count"]

    def test_a_created_file_is_whole_from_the_first_moment(self, storage, root):
        program = f"""
from ckptstore.storage import connect
storage = connect({str(root)!r})
for number in range(50):
    storage.create(str(number), b"x" * 2_000_000, durable=False)
"""
        seen = set()
        with subprocess.Popen([sys.executable, "-c", program]) as process:
            while process.poll() is None:
                for name, entry in storage.list().files.items():
                    if not name.startswith(".tmp-"):
                        seen.add(entry.size)

        assert seen <= {2_000_000}
        assert len(storage.list().files) == 50

    def test_a_relative_location_stays_where_it_was(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        storage = connect("dante")
        storage.create("a", b"1")
        (tmp_path / "other").mkdir()

        monkeypatch.chdir(tmp_path / "other")

        assert storage.read("a") == b"1"
        assert storage.location == "dante"


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="Linux only")
class TestReading:
    @pytest.mark.parametrize("number", [errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL])
    def test_what_is_not_in_the_page_cache_is_waited_for(self, storage, monkeypatch, number):
        preadv, asked = os.preadv, []

        def half_cached(descriptor, parts, start, flags=0):
            asked.append((start, flags))
            if not flags:
                return preadv(descriptor, parts, start)
            if start >= 4:
                raise OSError(number, os.strerror(number))
            return preadv(descriptor, [parts[0][:4]], start)

        storage.create("a", b"0123456789")
        monkeypatch.setattr(os, "preadv", half_cached)
        first, last = bytearray(6), bytearray(4)
        with storage.open("a") as reader:
            reader.readinto_parts(0, [memoryview(first), memoryview(last)])
            reader.readinto(0, memoryview(bytearray(4)))

        assert (first, last) == (b"012345", b"6789")
        wait = os.RWF_NOWAIT
        assert asked == [(0, wait), (4, wait), (4, 0), (0, 0)]


class TestErrors:
    def test_a_location_below_a_file_is_refused(self, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        storage = connect(tmp_path / "file" / "dante")

        for act in (lambda: storage.create("a", b""), lambda: write(storage, "a", b"")):
            with pytest.raises(StorageError, match="a part of this path is a file"):
                act()
        with pytest.raises(NotFoundError):
            storage.read("a")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may all")
    def test_a_folder_that_may_not_be_written_is_told(self, storage, root):
        root.mkdir(mode=0o555)

        with pytest.raises(StorageError, match="permission denied"):
            storage.create("a", b"")

    @posix
    def test_a_file_that_outgrows_the_limit_leaves_nothing(self, root):
        program = f"""
import resource
from ckptstore.errors import StorageError
from ckptstore.storage import Listing, connect
storage = connect({str(root)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
def write():
    with storage.writer("gen/a") as sink:
        sink.write(memoryview(bytes(5000)))
data = bytes(5000)
for act in (write, lambda: storage.create("gen/b", data), lambda: storage.replace("c", data)):
    try:
        act()
    except StorageError as error:
        print(error)
assert storage.list() == Listing({{}}, ())
"""
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )

        assert done.stdout.count("larger than the file system or the limit") == 3

    @pytest.mark.parametrize(
        ("number", "says"),
        [
            (errno.ENOSPC, "no space is left on the disk; free some"),
            (errno.EROFS, "the file system is read-only"),
            (errno.EIO, "input/output error; mend the disk"),
        ],
    )
    def test_what_the_system_refuses_is_explained_and_leaves_nothing(
        self, storage, root, monkeypatch, number, says
    ):
        def refuse(descriptor, data):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "write", refuse)
        for act in (
            lambda: storage.create("gen/a", b"1"),
            lambda: storage.replace("gen/a", b"1"),
            lambda: write(storage, "gen/a", b"1"),
            lambda: write_whole(storage, "gen/a", b"1"),
        ):
            with pytest.raises(StorageError, match=f"'{root}/gen/a': {says}"):
                act()
        monkeypatch.undo()

        assert storage.list() == Listing({}, ())

    def test_a_failed_replace_leaves_the_old_file(self, storage, root, monkeypatch):
        storage.create("a", b"old")

        def refuse(descriptor):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match="input/output error"):
            storage.replace("a", b"new")
        with pytest.raises(StorageError, match="input/output error"):
            storage.swap("a", b"old", b"new")
        monkeypatch.undo()

        assert storage.read("a") == b"old"
        assert os.listdir(root) == ["a"]

    def test_a_folder_in_the_place_of_a_file_is_told(self, storage):
        storage.create("a/b", b"")

        with pytest.raises(StorageError, match="it is a folder"):
            storage.replace("a", b"")
        with pytest.raises(StorageError, match="it is a folder"):
            storage.create("a", b"")
        storage.delete("a")
        assert storage.entry("a/b")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
    def test_a_pipe_is_not_waited_for(self, storage, root):
        root.mkdir()
        os.mkfifo(root / "a")

        with pytest.raises(NotFoundError, match="not a file"):
            storage.read("a")
        assert storage.list() == Listing({}, ())

    def test_a_reader_that_an_interrupt_left_half_made_goes_quietly(self, storage):
        storage.create("a", b"1")
        with storage.open("a") as reader:
            half_made = object.__new__(type(reader))

        half_made.close()

    def test_an_error_after_somebody_elses_file_took_the_name_leaves_that_file(self, storage, root):
        def interrupt():
            with storage.writer("a"):
                (root / "a").unlink()
                (root / "a").write_bytes(b"theirs")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupt()

        assert storage.read("a") == b"theirs"
