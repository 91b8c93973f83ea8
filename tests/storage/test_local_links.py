"""Hard links that local disk makes, and symbolic ones that the user has put there (G5)."""

import errno
import os

import pytest

from ckptstore.errors import UnsafeError, UnsupportedError
from ckptstore.storage import AlreadyThereError, Listing, connect

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX only")


@pytest.fixture
def storage(tmp_path):
    return connect(tmp_path / "dante")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "dante"


def write(storage, name, data):
    with storage.writer(name) as sink:
        sink.write(memoryview(data))


def test_a_copy_takes_no_space(storage, root):
    storage.create("gen/model-x.pt", b"weights")

    storage.copy("gen/model-x.pt", "model.pt")
    storage.copy("gen/model-x.pt", "model.pt")

    assert os.path.samefile(root / "gen/model-x.pt", root / "model.pt")
    assert sorted(os.listdir(root)) == ["gen", "model.pt"]
    assert os.stat(root / "model.pt").st_nlink == 2


def test_without_hard_links_everything_works(storage, root, monkeypatch):
    def refuse(*paths, **options):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)

    storage.create("a", b"1")
    with pytest.raises(AlreadyThereError):
        storage.create("a", b"2")
    storage.copy("a", "b")
    storage.copy("a", "b")

    assert storage.read("a") == storage.read("b") == b"1"
    assert not os.path.samefile(root / "a", root / "b")
    assert sorted(os.listdir(root)) == ["a", "b"]


@posix
def test_a_link_is_read_through_and_never_written_through(storage, root, tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_bytes(b"mine")
    root.mkdir()
    for name in ("a", "b", "c"):
        (root / name).symlink_to(mine)
    storage.create("new", b"new")

    assert storage.read("a") == b"mine"
    assert storage.entry("a").size == 4
    storage.replace("a", b"changed")
    storage.copy("new", "b")
    assert storage.swap("c", b"mine", b"swapped")
    with pytest.raises(AlreadyThereError):
        write(storage, "c", b"x")

    assert mine.read_bytes() == b"mine"
    assert not any((root / name).is_symlink() for name in ("a", "b", "c"))


@posix
def test_a_copy_of_a_users_link_shares_nothing_with_the_users_file(storage, root, tmp_path):
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"mine")
    root.mkdir()
    (root / "model.pt").symlink_to(mine)

    storage.copy("model.pt", "gen/model.pt")

    assert storage.read("gen/model.pt") == b"mine"
    assert not os.path.samefile(root / "gen/model.pt", mine)


@posix
@pytest.mark.parametrize("link", [".ckptstore", ".ckptstore/00000001"])
@pytest.mark.parametrize(
    "act",
    [
        lambda storage, name: storage.create(name, b"x"),
        lambda storage, name: write(storage, name, b"x"),
        lambda storage, name: storage.replace(name, b"x"),
        lambda storage, name: storage.swap(name, b"mine", b"x"),
        lambda storage, name: storage.copy("new", name),
        lambda storage, name: storage.delete(name),
    ],
    ids=["create", "writer", "replace", "swap", "copy", "delete"],
)
def test_a_linked_folder_is_read_through_and_never_changed_through(
    storage, root, tmp_path, link, act
):
    precious = tmp_path / "precious"
    below = precious if link.endswith("1") else precious / "00000001"
    below.mkdir(parents=True)
    (below / "thesis").write_bytes(b"mine")
    storage.create("new", b"new")
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(precious)

    for name in ("thesis", "other", "deeper/other"):
        with pytest.raises(UnsafeError, match=rf"{link}' is a link, and nothing is written or"):
            act(storage, f".ckptstore/00000001/{name}")

    assert storage.read(".ckptstore/00000001/thesis") == b"mine"
    assert list(storage.list(".ckptstore/00000001").files) == ["thesis"]
    assert [path.name for path in below.iterdir()] == ["thesis"]
    assert (below / "thesis").read_bytes() == b"mine"
    storage.copy(".ckptstore/00000001/thesis", "mine")
    assert storage.read("mine") == b"mine"


@posix
def test_the_location_itself_may_be_a_link(storage, root, tmp_path):
    (tmp_path / "disk").mkdir()
    root.symlink_to(tmp_path / "disk")

    storage.create("gen/a", b"1")
    storage.copy("gen/a", "b")
    storage.delete("gen/a")

    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["b"]


@posix
def test_deleting_a_link_leaves_what_it_leads_to(storage, root, tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "mine")

    storage.delete("a")

    assert list(root.iterdir()) == []
    assert (tmp_path / "mine").read_bytes() == b"mine"


@posix
def test_a_link_to_nowhere_is_absent_and_not_written_through(storage, root, tmp_path):
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "nowhere")
    (root / "loop").symlink_to("loop")

    assert storage.list() == Listing({}, ())
    assert storage.entry("a") is None
    with pytest.raises(AlreadyThereError):
        storage.create("a", b"")
    assert not (tmp_path / "nowhere").exists()


def test_a_new_name_for_a_users_link_is_refused(storage, root, tmp_path):
    (tmp_path / "mine.pt").write_bytes(b"the user's")
    root.mkdir(parents=True, exist_ok=True)
    (root / "model.pt").symlink_to(tmp_path / "mine.pt")

    with pytest.raises(UnsupportedError, match="cannot have a second name"):
        storage.copy("model.pt", "step-00000001/model.pt", only_new=True)

    assert not (root / "step-00000001").exists()


def test_where_there_are_no_links_a_new_name_is_refused_and_nothing_is_left(
    storage, root, monkeypatch
):
    storage.create("gen/a", b"bytes")

    def refuse(source, path):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(UnsupportedError, match="cannot have a second name"):
        storage.copy("gen/a", "step/a", only_new=True)

    assert not (root / "step").exists()
