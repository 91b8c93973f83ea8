"""The test kit for formats."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from ckptstore import plugins
from ckptstore.errors import CkptstoreError, UnsupportedError
from ckptstore.formats.base import Contents, Files, Format, NewFiles, Reader
from ckptstore.storage.base import Sink
from ckptstore.testing.memory import MemoryFiles, MemoryNewFiles

__all__ = ["FormatTests", "example_contents"]


class FormatTests:
    """Every promise of `Format` and `Reader`, for one format.

    Subclass it under a name that begins with ``Test``, and override the fixture `format_class`;
    also `contents` where the format does not hold everything, and `files` where it only reads.
    The package has to be installed, because one of the promises is that the format is found.
    """

    @pytest.fixture
    def format_class(self) -> type[Format]:
        """The class to be tested; override it."""
        raise NotImplementedError(f"{type(self).__name__} has to override the fixture format_class")

    @pytest.fixture
    def contents(self) -> Contents:
        """What is written and read; override it where the format holds less."""
        return example_contents()

    @pytest.fixture
    def files(self, format_class: type[Format], contents: Contents) -> MemoryFiles:
        """Files of this format that hold `contents`; override it where the format only reads."""
        if not format_class.writable:
            raise NotImplementedError(
                f"the format {format_class.name!r} is not writable, so {type(self).__name__} has "
                "to override the fixture files"
            )
        return _written(format_class(), contents)

    # -- reading ------------------------------------------------------------------------

    def test_what_was_written_is_read(
        self, format_class: type[Format], files: MemoryFiles, contents: Contents
    ) -> None:
        """Tensors bit for bit, dtypes, shapes, and every JSON value, as `Format.stored` says."""
        format_ = format_class()
        _check_equal(format_.read(files), format_.stored(contents))

    def test_tensors_are_listed_as_they_load(
        self, format_class: type[Format], files: MemoryFiles
    ) -> None:
        """``inspect`` shows names, dtypes and shapes without reading weights."""
        reader = format_class().read(files)
        loaded = reader.load_model()
        listed = reader.tensors()
        assert set(listed) == set(loaded)
        for name, info in listed.items():
            assert f"torch.{info.dtype}" == str(loaded[name].dtype)
            assert info.shape == tuple(loaded[name].shape)
            assert info.nbytes == loaded[name].nelement() * loaded[name].element_size()

    def test_named_tensors_are_read_alone(
        self, format_class: type[Format], files: MemoryFiles, contents: Contents
    ) -> None:
        """A partial read gives what was asked for, and says which name is not there."""
        reader = format_class().read(files)
        stored = format_class().stored(contents).model
        names = sorted(stored)[:2]
        loaded = reader.load_model(names)
        assert _same(loaded, {name: stored[name] for name in names})
        with pytest.raises(CkptstoreError, match="no such tensor"):
            reader.load_model(["no such tensor"])

    def test_its_files_are_named(self, format_class: type[Format], files: MemoryFiles) -> None:
        """``verify`` and ``sync`` go by the names that the reader gives."""
        names = format_class().read(files).files()
        assert names
        assert set(names) <= set(files.names())

    # -- writing ------------------------------------------------------------------------

    def test_equal_states_are_written_as_equal_bytes(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """Saving one state again changes nothing, and ``sync`` has nothing to copy."""
        if format_class.writable:
            first = _written(format_class(), contents)
            second = _written(format_class(), contents)
            assert first.data == second.data

    def test_weights_alone_are_a_checkpoint(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """Everything but the model is optional."""
        if format_class.writable:
            format_, alone = format_class(), Contents(model=contents.model)
            _check_equal(format_.read(_written(format_, alone)), format_.stored(alone))

    def test_files_of_a_tokenizer_come_back_or_are_left_out(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """A format has room for all of them or for none; a copy for inference has them too."""
        if format_class.writable and contents.tokenizer_state is not None:
            files = {"tokenizer.words": b"a\nthe\n", "tokenizer.more": b""}
            written = _written(format_class(), replace(contents, tokenizer_files=files))
            reader = format_class().read(written)
            found = reader.tokenizer_files()
            assert dict(found) in ({}, files)
            assert {*found} <= {*reader.files()}
            assert not reader.for_inference() or {*found} <= {*reader.for_inference()}

    def test_a_write_that_fails_is_not_taken_for_done(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """A full disk reaches the caller as an error."""
        if format_class.writable:
            with pytest.raises((OSError, CkptstoreError)):
                format_class().write(contents, _FullDisk())

    def test_a_format_of_one_file_writes_that_file_alone(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """``convert`` gives it the name that the user chose."""
        if format_class.writable and format_class.one_file is not None:
            assert _written(format_class(), contents).names() == (format_class.one_file,)

    def test_the_one_file_is_read_under_any_name(
        self, format_class: type[Format], files: MemoryFiles, contents: Contents
    ) -> None:
        """A location may name a file, and `Files.named` then says which."""
        if format_class.one_file is not None:
            name = f"of another name{PurePosixPath(format_class.one_file).suffix}"
            renamed = MemoryFiles({name: files.data[format_class.one_file]}, named=name)
            assert format_class().matches(renamed) is True
            _check_equal(format_class().read(renamed), format_class().stored(contents))

    def test_a_format_that_only_reads_says_so(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """`writable` is the truth."""
        if not format_class.writable:
            with pytest.raises(CkptstoreError, match=format_class.name):
                format_class().write(contents, MemoryNewFiles())

    # -- finding ------------------------------------------------------------------------

    def test_the_format_is_found(self, format_class: type[Format]) -> None:
        """The hook is implemented, the entry point is installed, and nobody else has the name."""
        assert type(plugins.format_named(format_class.name)) is format_class

    def test_its_own_files_match(self, format_class: type[Format], files: MemoryFiles) -> None:
        """A location is opened without being told the format."""
        assert format_class().matches(files) is True

    def test_nothing_else_matches(self, format_class: type[Format]) -> None:
        """An empty folder and a folder of other files are no checkpoint."""
        for data in (
            {},
            {"notes.txt": b"hello", "README.md": b"# hello"},
            {"data.json": b'{"a": 1}', "table.csv": b"a,b\n1,2\n"},
        ):
            assert format_class().matches(MemoryFiles(data)) is False

    def test_no_other_formats_files_are_claimed(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """Of two formats that match one folder, one says that it yields to the other."""
        for name, other in plugins.formats().items():
            if name == format_class.name or not other.writable:
                continue
            if name in format_class.yields_to or format_class.name in other.yields_to:
                continue
            with suppress(UnsupportedError):  # The other one holds nothing of this kind.
                assert not format_class().matches(_written(other, example_contents())), name

    # -- hostile files ------------------------------------------------------------------

    def test_nothing_in_a_file_is_run(
        self, format_class: type[Format], files: MemoryFiles, tmp_path: Path
    ) -> None:
        """G5: whatever pickle stands in the place of a file, no byte of it is executed."""
        mark = tmp_path / "executed"
        for name in files.names():
            for payload in _unsafe_payloads(mark):
                attacked = MemoryFiles({**files.data, name: payload})
                with pytest.raises(CkptstoreError):
                    _read_everything(format_class(), attacked)
                assert not mark.exists(), f"reading {name} ran code"

    def test_damage_is_an_error_or_changes_nothing(
        self, format_class: type[Format], files: MemoryFiles, contents: Contents
    ) -> None:
        """Cut off, emptied or replaced: one clear error, or the state as it was."""
        stored = format_class().stored(contents)
        for name, whole in files.data.items():
            for data in (b"", whole[: len(whole) // 2], whole[:-1], b"[]", b"{", b"\xff\xfe\x00"):
                with _our_errors_only():
                    _check_equal(
                        _read_everything(format_class(), MemoryFiles({**files.data, name: data})),
                        stored,
                    )

    def test_looking_at_damaged_files_raises_nothing_but_our_errors(
        self, format_class: type[Format], files: MemoryFiles
    ) -> None:
        """`matches` is asked about every folder, whatever is in it."""
        for name in files.names():
            for data in (b"", b"PK\x03\x04", b"{", b"\x80\x02}q\x00."):
                with _our_errors_only():
                    found = format_class().matches(MemoryFiles({**files.data, name: data}))
                    assert isinstance(found, bool)


def example_contents() -> Contents:
    """Return a small state that has something of everything."""
    import torch

    weight = torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7
    return Contents(
        model={
            "blocks.0.weight": weight,
            "blocks.0.half": weight.to(torch.bfloat16),
            "counter": torch.tensor(7),
            "empty": torch.empty(0, 3),
            "mask": torch.tensor([True, False, True]),
        },
        config={"n_layer": 1, "dropout": 0.25, "name": "ä 漢", "nested": {"list": [1, None, "x"]}},
        tokenizer_state={"token_kind": "char", "chars": ["\n", " ", "a", "ä"]},
        optimizer={
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": weight / 3}},
            "param_groups": [{"lr": 3e-4, "betas": (0.9, 0.999), "params": [0]}],
        },
        states={"scheduler": {"last_epoch": 3, "rng": torch.arange(5, dtype=torch.uint8)}},
        step=1500,
        training_state={"note": "ä 漢", "losses": [2.5, 1.25]},
    )


def _written(format_: Format, contents: Contents) -> MemoryFiles:
    files = MemoryNewFiles()
    format_.write(contents, files)
    return files.written()


def _read_everything(format_: Format, files: Files) -> Reader:
    reader = format_.read(files)
    reader.tensors()
    reader.load_model()
    reader.load_optimizer()
    for name in reader.states():
        reader.load_state(name)
    dict(reader.tokenizer_files())
    return reader


def _check_equal(reader: Reader, contents: Contents) -> None:
    assert _same(reader.load_model(), contents.model)
    assert reader.step == contents.step
    assert reader.config == contents.config
    assert reader.tokenizer_state == contents.tokenizer_state
    assert _same(reader.load_optimizer(), contents.optimizer)
    assert set(reader.states()) == set(contents.states)
    for name, state in contents.states.items():
        assert _same(reader.load_state(name), state)
    found = reader.training_state or {}
    assert {name: found.get(name) for name in contents.training_state} == contents.training_state


def _same(one: Any, other: Any) -> bool:
    """Whether two nested states are equal, tensors bit for bit."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, str) or not isinstance(one, Sequence):
        return bool(type(one) is type(other) and one == other)
    return (
        isinstance(other, Sequence)
        and len(one) == len(other)
        and all(_same(*pair) for pair in zip(one, other, strict=True))
    )


@contextmanager
def _our_errors_only() -> Iterator[None]:
    try:
        yield
    except CkptstoreError as error:
        if not str(error):
            raise AssertionError(f"a {type(error).__name__} without a message") from error


class _Unsafe:
    """Makes a folder when it is unpickled, to show that something was run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def _unsafe_payloads(mark: Path) -> Iterator[bytes]:
    import torch

    for value in (_Unsafe(mark), {"weight": torch.zeros(2), "other": _Unsafe(mark)}):
        yield pickle.dumps(value)
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
            yield buffer.getvalue()


class _FullDisk(NewFiles):
    """Takes names, and fails at the first byte."""

    def write_text(self, name: str, text: str) -> None:
        raise OSError(28, "no space left on device")

    @contextmanager
    def create(self, name: str, *, expected_size: int = 0) -> Iterator[Sink]:
        yield _FullSink()


class _FullSink(Sink):
    def write(self, data: memoryview, /) -> None:
        raise OSError(28, "no space left on device")
