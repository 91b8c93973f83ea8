"""The test kit for formats."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from ckptstore import plugins
from ckptstore.errors import CkptstoreError, UnsupportedError
from ckptstore.formats.base import Contents, Format
from ckptstore.testing.comparing import (
    check_equal,
    example_contents,
    our_errors_only,
    read_everything,
    same,
    written,
)
from ckptstore.testing.hostile import FormatHostility
from ckptstore.testing.later import FormatLater
from ckptstore.testing.memory import MemoryFiles, MemoryNewFiles
from ckptstore.testing.reading import FormatReading
from ckptstore.testing.storing import FormatStoring

__all__ = ["FormatTests"]


class FormatTests(FormatReading, FormatLater, FormatStoring, FormatHostility):
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
    def stored(self, format_class: type[Format], contents: Contents) -> Contents:
        """What reading gives back of `contents`, as `Format.stored` says."""
        return format_class().stored(contents)

    @pytest.fixture
    def files(self, format_class: type[Format], contents: Contents) -> MemoryFiles:
        """Files of this format that hold `contents`; override it where the format only reads."""
        if not format_class.writable:
            raise NotImplementedError(
                f"the format {format_class.name!r} is not writable, so {type(self).__name__} has "
                "to override the fixture files"
            )
        return written(format_class(), contents)

    # -- reading ------------------------------------------------------------------------

    def test_what_was_written_is_read(
        self, format_class: type[Format], files: MemoryFiles, stored: Contents
    ) -> None:
        """Tensors bit for bit, dtypes, shapes, and every JSON value, as `Format.stored` says."""
        check_equal(format_class().read(files), stored)

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
        self, format_class: type[Format], files: MemoryFiles, stored: Contents
    ) -> None:
        """A partial read gives what was asked for, and says which name is not there."""
        reader = format_class().read(files)
        names = sorted(stored.model)[:2]
        loaded = reader.load_model(names)
        assert same(loaded, {name: stored.model[name] for name in names})
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
            first = written(format_class(), contents)
            second = written(format_class(), contents)
            assert first.data == second.data

    def test_weights_alone_are_a_checkpoint(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """Everything but the model is optional."""
        if format_class.writable:
            format_, alone = format_class(), Contents(model=contents.model)
            check_equal(format_.read(written(format_, alone)), format_.stored(alone))

    def test_files_of_a_tokenizer_come_back_or_are_left_out(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """A format has room for all of them or for none; a copy for inference has them too."""
        if format_class.writable and contents.tokenizer_state is not None:
            files = {"tokenizer.words": b"a\nthe\n", "tokenizer.more": b""}
            with_files = replace(contents, tokenizer_files=files)
            reader = format_class().read(written(format_class(), with_files))
            found = reader.tokenizer_files()
            assert dict(found) in ({}, files)
            assert {*found} <= {*reader.files()}
            assert not reader.for_inference() or {*found} <= {*reader.for_inference()}

    def test_a_format_of_one_file_writes_that_file_alone(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """``convert`` gives it the name that the user chose."""
        if format_class.writable and format_class.one_file is not None:
            assert written(format_class(), contents).names() == (format_class.one_file,)

    def test_the_one_file_is_read_under_any_name(
        self, format_class: type[Format], files: MemoryFiles, stored: Contents
    ) -> None:
        """A location may name a file, and `Files.named` then says which."""
        if format_class.one_file is not None:
            name = f"of another name{PurePosixPath(format_class.one_file).suffix}"
            renamed = MemoryFiles({name: files.data[format_class.one_file]}, named=name)
            assert format_class().matches(renamed) is True
            check_equal(format_class().read(renamed), stored)

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
                assert not format_class().matches(written(other, example_contents())), name

    # -- hostile files ------------------------------------------------------------------

    def test_nothing_in_a_file_is_run(
        self, format_class: type[Format], files: MemoryFiles, stored: Contents, tmp_path: Path
    ) -> None:
        """G5: whatever pickle stands in the place of a file, no byte of it is executed."""
        mark = tmp_path / "executed"
        for name in files.names():
            for payload in _unsafe_payloads(mark):
                attacked = MemoryFiles({**files.data, name: payload})
                with our_errors_only():
                    check_equal(read_everything(format_class(), attacked), stored)
                assert not mark.exists(), f"reading {name} ran code"

    def test_damage_is_an_error_or_changes_nothing(
        self, format_class: type[Format], files: MemoryFiles, stored: Contents
    ) -> None:
        """Cut off, emptied or replaced: one clear error, or the state as it was."""
        for name, whole in files.data.items():
            for data in (b"", whole[: len(whole) // 2], whole[:-1], b"[]", b"{", b"\xff\xfe\x00"):
                with our_errors_only():
                    check_equal(
                        read_everything(format_class(), MemoryFiles({**files.data, name: data})),
                        stored,
                    )

    def test_looking_at_damaged_files_raises_nothing_but_our_errors(
        self, format_class: type[Format], files: MemoryFiles
    ) -> None:
        """`matches` is asked about every folder, whatever is in it."""
        for name in files.names():
            for data in (b"", b"PK\x03\x04", b"{", b"\x80\x02}q\x00."):
                with our_errors_only():
                    found = format_class().matches(MemoryFiles({**files.data, name: data}))
                    assert isinstance(found, bool)


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
