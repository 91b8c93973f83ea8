"""From a path or URL to a storage."""

import http.server
import os
import subprocess
import sys
import threading
import traceback
import zipfile
from pathlib import Path

import pytest

from ckptstore.errors import CkptstoreError, UnsupportedError
from ckptstore.storage import connect, locate


def test_a_file_is_told_from_a_folder_everywhere(location):
    url, options = location
    connect(url, options).create("old [1].pt", b"1")

    storage, name = locate(f"{url}/old [1].pt", options)
    assert name == "old [1].pt"
    assert storage.read(name) == b"1"
    for folder in (url, f"{url}/", f"{url}/absent", f"{url}/old [1].pt/"):
        assert locate(folder, options)[1] is None
    assert locate(url, options)[0].read("old [1].pt") == b"1"


def test_trailing_separators_mean_nothing(location):
    url, options = location
    connect(f"{url}//", options).create("a", b"1")

    assert connect(url, options).read("a") == b"1"
    assert connect(f"{url}/", options).location == connect(url, options).location


class TestPaths:
    def test_a_path_may_be_text_or_a_path_or_a_file_url(self, tmp_path):
        folder = tmp_path / "a #1 %41 [x] é"
        connect(folder).create("a", b"1")

        for location in (str(folder), folder, f"file://{folder}", f"local://{folder}"):
            assert connect(location).read("a") == b"1"
            assert locate(location)[0].read("a") == b"1"
            assert connect(location).location == str(folder)

    def test_the_home_folder_is_found(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        connect(tmp_path / "dante").create("x.pt", b"1")

        assert connect("~/dante").read("x.pt") == b"1"
        assert locate("~/dante/x.pt")[1] == "x.pt"

    def test_a_relative_file_is_found(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("latest.pt").write_bytes(b"1")

        storage, name = locate("latest.pt")

        assert name == "latest.pt"
        assert storage.read(name) == b"1"

    def test_a_path_object_is_a_path_whatever_it_looks_like(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        connect(Path("run:") / "bucket").create("a", b"1")
        connect(Path("x::y")).create("a", b"2")

        assert (tmp_path / "run:" / "bucket" / "a").read_bytes() == b"1"
        assert (tmp_path / "x::y" / "a").read_bytes() == b"2"

    def test_colons_in_a_path_are_literal(self, tmp_path):
        connect(f"{tmp_path}/run::2").create("12:30", b"1")

        assert (tmp_path / "run::2" / "12:30").read_bytes() == b"1"

    def test_colons_in_a_url_of_ours_are_literal(self, memory_url, moto_server):
        for url, options in (
            (f"{memory_url}::2", None),
            (f"{moto_server.url()}/run::2", moto_server.storage_options),
        ):
            connect(url, options).create("x.pt", b"1")

            assert connect(url, options).location == url
            assert locate(f"{url}/x.pt", options)[1] == "x.pt"

    def test_a_drive_letter_is_no_protocol(self):
        for location in ("C:\\runs\\dante", "C:/runs/dante", "c:dante"):
            assert type(connect(location)).__name__ == "LocalStorage"

    @pytest.mark.skipif(os.name != "nt", reason="Windows only")
    def test_a_file_url_may_name_a_drive(self):
        assert connect("file:///C:/runs").location == "C:/runs"

    def test_the_root_folder_is_a_location(self):
        assert connect("/").location == "/"

    def test_options_for_elsewhere_do_not_matter(self, tmp_path):
        connect(tmp_path, {"key": "x", "anything": 1}).create("a", b"1")

        assert (tmp_path / "a").read_bytes() == b"1"


class TestRefused:
    @pytest.mark.parametrize(
        ("location", "says"),
        [
            ("", "the location is empty"),
            ("nosuch://bucket/x", "no storage 'nosuch'"),
            ("lakefs://bucket/x", "'lakefs'.*needs a package.*lakefs"),
            ("s3://", "names no bucket"),
            ("s3:///dante", "names no bucket"),
            ("simplecache::s3://bucket/x", "reads through a cache"),
            ("filecache::s3://bucket/x", "reads through a cache"),
            ("blockcache::memory://x", "reads through a cache"),
            ("dir::simplecache::s3://bucket/x", "reads through a cache"),
            ("simplecache://bucket/x", "reads through a cache"),
        ],
    )
    def test_what_is_no_location_is_refused_at_once(self, location, says):
        with pytest.raises(UnsupportedError, match=says):
            connect(location)
        with pytest.raises(UnsupportedError, match=says):
            locate(location)

    def test_bytes_are_no_location(self):
        class Odd:
            def __fspath__(self):
                return b"x"

        with pytest.raises(UnsupportedError, match="not text"):
            connect(Odd())

    @pytest.mark.parametrize("location", [None, 5, b"x", ["x"]])
    def test_what_is_neither_text_nor_path_is_a_mistake_of_the_caller(self, location):
        says = f"cannot be a {type(location).__name__}; pass a path or a URL as str, or an os.Path"
        for act in (connect, locate):
            with pytest.raises(TypeError, match=says):
                act(location)

    @pytest.mark.parametrize("where", ["{}", "file://{}", "memory://{}", "dir://{}", "s3://b/{}"])
    @pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
    def test_a_location_that_no_system_could_name_is_refused(self, where, name):
        for act in (connect, locate):
            with pytest.raises(UnsupportedError, match="a character that no name can have"):
                act(where.format(name))
        with pytest.raises(UnsupportedError, match="a character that no name can have"):
            connect(Path(name))

    def test_credentials_in_a_url_are_never_repeated(self):
        with pytest.raises(UnsupportedError, match="holds credentials") as caught:
            connect("s3://AKIA:hunter2@bucket/x")
        assert "hunter2" not in str(caught.value)

        assert "hunter2" not in connect("ftp://me:hunter2@host/x").location


@pytest.mark.parametrize("half", ["s3:/bucket/dante", "memory:/dante", Path("s3://bucket/dante")])
def test_half_a_url_is_not_a_folder_of_that_name(half):
    with pytest.raises(
        UnsupportedError, match=r"is neither a URL nor a likely path; write '\w+://"
    ):
        connect(half)


def test_a_general_filesystem_makes_no_bucket(tmp_path):
    storage = connect("dir://typo/dante", {"path": str(tmp_path), "target_protocol": "file"})

    with pytest.raises(FileNotFoundError):
        storage.create("a", b"1")

    assert list(tmp_path.iterdir()) == []


def test_a_chain_of_filesystems_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        archive.writestr("dante/config.json", "{}")

    storage, name = locate(f"zip://dante::file://{tmp_path}/old.zip")

    assert name is None
    assert storage.read("config.json") == b"{}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ftp://me:hunter2@127.0.0.1:9/x", "ftp://127.0.0.1:9/x"),
        ("ftp://me:a/hunter2@127.0.0.1:9/x", "ftp://***@127.0.0.1:9/x"),
        ("ftp://me:b@a/hunter2@127.0.0.1:9/x", "ftp://***@127.0.0.1:9/x"),
        ("ftp://me:a?b=hunter2@127.0.0.1:9/x", "ftp://127.0.0.1:9/x"),
        ("http://me:hunter2%40@127.0.0.1:9/x", "http://127.0.0.1:9/x"),
        ("http://127.0.0.1:9/x?token=hunter2", "http://127.0.0.1:9/x?token=***"),
        ("http://127.0.0.1:9/x?a=hunter2&hunter2", "http://127.0.0.1:9/x?a=***&***"),
        ("http://127.0.0.1:9/x?sig=hunter2/hunter2", "http://127.0.0.1:9/x?sig=***"),
        ("http://127.0.0.1:9/x#hunter2", "http://127.0.0.1:9/x"),
        ("zip://a::http://me:hunter2@127.0.0.1:9/x.zip", "zip://a::http://127.0.0.1:9/x.zip"),
        ("zip://a::http://127.0.0.1:9/x.zip#hunter2", "zip://a::http://127.0.0.1:9/x.zip#***"),
        ("zip://a::s3://me:hunter2@b/x.zip", "zip://a::s3://b/x.zip"),
        ("webhdfs://me:hunter2@127.0.0.1:9/x", "webhdfs://127.0.0.1:9/x"),
        ("dir::file:///x?hunter2", "dir::file:///x?***"),
        ("dir://run #1/a@b", "dir://run #1/a@b"),
    ],
)
def test_nothing_secret_of_a_url_is_ever_shown(url, shown):
    options = {"path": "/", "target_protocol": "file"} if url.startswith("dir://") else {}

    assert connect(url, options).location == shown
    for act in (lambda: locate(url, options)[0].create("a", b""), lambda: connect(url).read("a")):
        with pytest.raises(CkptstoreError) as caught:
            act()
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "location", ["simplecache::http://h/x?sig=hunter2", "nosuch://me:a/hunter2@h/x#hunter2"]
)
def test_nothing_secret_of_a_refused_url_is_shown(location):
    for act in (connect, locate):
        with pytest.raises(UnsupportedError) as caught:
            act(location)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.fixture
def web(tmp_path):
    """A web server that shows files only to requests that have the token."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def do_GET(self):
            if self.path.endswith("?token=a/b"):
                super().do_GET()
            else:
                self.send_error(403)

        def do_HEAD(self):
            self.do_GET()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_query_of_a_web_address_goes_with_every_name(web, tmp_path):
    (tmp_path / "dante").mkdir()
    (tmp_path / "dante" / "model.pt").write_bytes(b"weights")

    storage, name = locate(f"{web}/dante/model.pt?token=a/b")

    assert name == "model.pt"
    assert storage.read(name) == b"weights"
    assert storage.location == f"{web}/dante?token=***"
    assert connect(f"{web}/dante?token=a/b").read("model.pt") == b"weights"


def test_values_of_options_are_never_repeated(tmp_path):
    (tmp_path / "hunter2").write_bytes(b"")
    options = {"path": str(tmp_path), "target_protocol": "file", "password": "hunter2"}
    storage = connect("dir://hunter2/dante", options)

    with pytest.raises(OSError, match=r"\*\*\*|directory") as caught:
        storage.create("a", b"1")

    assert "hunter2" not in str(caught.value).replace(storage.location, "")
    assert caught.value.__cause__ is None


def test_local_work_imports_no_fsspec():
    program = (
        "import sys, tempfile; from ckptstore.storage import locate;"
        "s, _ = locate(tempfile.mkdtemp()); s.create('a', b''); s.list(); s.delete('a');"
        "bad = {'fsspec', 's3fs', 'botocore', 'torch', 'aiohttp'} & set(sys.modules);"
        "assert not bad, bad"
    )

    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("location", "above", "name"),
    [
        ("new/dante.pt", "new", "dante.pt"),
        ("dante.pt", ".", "dante.pt"),
        ("new/dante/", "new/dante", None),
        ("new/..", "new/..", None),
        ("memory://dante.pt", "memory://", "dante.pt"),
        ("memory://a/dante.pt", "memory://a", "dante.pt"),
        ("s3://bucket/dante.pt", "s3://bucket", "dante.pt"),
        ("s3://bucket/a/", "s3://bucket/a", None),
        ("s3://bucket", "s3://bucket", None),
    ],
)
def test_a_new_file_is_told_from_its_folder_without_asking_the_storage(location, above, name):
    place, found = locate(location, new=True)

    assert (place.location, found) == (above, name)
