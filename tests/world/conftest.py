"""What the tests of the world's faults share: a checkpoint to hold on to, and ways to do harm.

Every harm is real where the machine allows it: a small disk that is full, a limit of the process,
permissions without root's right to ignore them, a server behind a proxy. A test that needs root to
mount something is skipped without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import ckptstore
from ckptstore.testing import S3Proxy

SIZES = ["--batch_size", "2", "--block_size", "8", "--n_embd", "8", "--n_head", "2"]
SIZES += ["--n_layer", "1", "--eval_iters", "1", "--eval_interval", "1", "--seed", "1"]
IMPATIENT = {"read_timeout": 5, "connect_timeout": 2, "retries": {"total_max_attempts": 3}}


def weights(step: int, size: int = 3000) -> dict[str, torch.Tensor]:
    """Return a state dict that shows which step it is of."""
    return {"w": torch.full((size,), float(step))}


@dataclass
class Place:
    """A location with a checkpoint that must not be lost."""

    url: str
    options: dict[str, Any] | None = None

    def save(self, step: int, size: int = 3000) -> ckptstore.Checkpoint:
        return ckptstore.save(
            self.url, model=weights(step, size), step=step, storage_options=self.options
        )

    def store(self, **arguments: Any) -> ckptstore.Store:
        return ckptstore.Store(self.url, storage_options=self.options, **arguments)

    def open(self) -> ckptstore.Checkpoint:
        return ckptstore.open(self.url, storage_options=self.options)

    def holds(self, step: int) -> bool:
        """Whether the newest state is that of a step: whole, and proved."""
        checkpoint = self.open()
        loaded = checkpoint.load_model()["w"]
        assert checkpoint.verify().sound
        return checkpoint.step == step and bool((loaded == step).all())


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Give a function that runs ``ckptstore …`` or ``gpt …`` in this process."""
    from ckptstore.cli import main as ckptstore_main
    from gpt.__main__ import main as gpt_main

    def run(program: str, *arguments: object) -> Result:
        main = {"ckptstore": ckptstore_main, "gpt": gpt_main}[program]
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def train(run: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    """Give a function that trains a tiny model: ``train(base, max_iters)``."""
    text = tmp_path / "text.txt"
    text.write_text("Nel mezzo del cammin di nostra vita " * 20, "utf-8")

    def train(base: object, max_iters: int) -> Result:
        return run(
            *("gpt", "train", "--model_name", "dante", "--base_dir", base, *SIZES),
            *("--input_file", text, "--tokenization", "char", "--max_iters", max_iters),
        )

    return train


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give a checkpoint of step 1 on local disk."""
    found = Place(str(tmp_path / "dante"))
    found.save(1)
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of 4 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", "size=4m", "ckptstore-test", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine mounts nothing: {done.stderr.strip()}")


@contextlib.contextmanager
def full(disk: Path, left: int) -> Iterator[None]:
    """Fill a disk but for some bytes."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - left)
    yield
    filler.unlink()


@contextlib.contextmanager
def read_only(disk: Path) -> Iterator[None]:
    _mount("-o", "remount,ro", str(disk))
    yield
    _mount("-o", "remount,rw", str(disk))


@contextlib.contextmanager
def limited(kind: int, most: int) -> Iterator[None]:
    """Lower a limit of this process for a while."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def next_descriptor() -> int:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


@contextlib.contextmanager
def over_quota() -> Iterator[None]:
    """Let the operating system refuse every byte of a file, as if its owner had no quota left."""
    real = os.write

    def write(descriptor: int, data: Any) -> int:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return real(descriptor, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write)
        yield


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


@contextlib.contextmanager
def permissions_count() -> Iterator[None]:
    """Take from this thread the right of root to read and write what permissions forbid."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = _CapabilityHeader(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    assert libc.capget(ctypes.byref(header), sets) == 0
    effective = sets[0]
    sets[0] = effective & ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(ctypes.byref(header), sets) == 0
    try:
        yield
    finally:
        sets[0] = effective
        assert libc.capset(ctypes.byref(header), sets) == 0


@contextlib.contextmanager
def modes(folder: Path, mode: int) -> Iterator[None]:
    """Give a folder, and all folders in it, other permissions, which count for root as well."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    before = {path: path.stat().st_mode for path in folders}
    for path in reversed(folders):
        path.chmod(mode)
    try:
        with permissions_count():
            yield
    finally:
        for path in folders:
            path.chmod(before[path])


@dataclass
class Broken:
    """A checkpoint of step 1, and a fault that can be switched on.

    Attributes:
        place: the checkpoint.
        fault: a context manager that does the harm while it lasts.
        says: what the error has to say, as a pattern.
    """

    place: Place
    fault: Callable[[], contextlib.AbstractContextManager[None]]
    says: str


@pytest.fixture
def break_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Broken]:
    """Give a function that makes a checkpoint and one of the disk's faults, by its name."""

    def break_disk(name: str) -> Broken:
        on_small = name in ("full", "nearly full", "read-only disk")
        base: Path = request.getfixturevalue("small_disk") if on_small else tmp_path / "base"
        place = Place(str(base / "dante"))
        place.save(1)
        return Broken(place, *_faults(base)[name])

    return break_disk


def _faults(base: Path) -> dict[str, tuple[Callable[..., Any], str]]:
    space = "no space is left on the disk; free some, then try again"
    return {
        "full": (lambda: full(base, 0), space),
        "nearly full": (lambda: full(base, 2**16), space),
        "read-only disk": (lambda: read_only(base), "read-only; choose another location"),
        "quota": (over_quota, "quota is used up; free some space"),
        "file size": (lambda: limited(resource.RLIMIT_FSIZE, 8192), r"limit \(ulimit -f\) allows"),
        "open files": (
            lambda: limited(resource.RLIMIT_NOFILE, next_descriptor()),
            r"too many files are open; close some, or raise the limit \(ulimit -n\)",
        ),
        "read-only folder": (lambda: modes(base, 0o555), "permission denied; look at its owner"),
        "no permission": (lambda: modes(base, 0o000), "permission denied; look at its owner"),
    }


@pytest.fixture
def proxy(moto_server: Any) -> Iterator[S3Proxy]:
    """Give a proxy before moto; who goes through it is impatient."""
    options = {**moto_server.storage_options, "config_kwargs": IMPATIENT}
    with S3Proxy(moto_server.endpoint, options) as standing:
        yield standing


@pytest.fixture
def hurried(bucket: Place, proxy: S3Proxy) -> Place:
    """Give the same checkpoint by way of the proxy, to somebody who waits two seconds."""
    settings = {**IMPATIENT, "read_timeout": 2}
    return Place(bucket.url, {**proxy.storage_options, "config_kwargs": settings})


@pytest.fixture
def bucket(moto_server: Any) -> Place:
    """Give a checkpoint of step 1 in a bucket, reached without the proxy."""
    found = Place(moto_server.url("dante"), moto_server.storage_options)
    found.save(1)
    return found


@pytest.fixture
def through(bucket: Place, proxy: S3Proxy) -> Place:
    """Give the same checkpoint, reached by way of the proxy."""
    return Place(bucket.url, proxy.storage_options)
