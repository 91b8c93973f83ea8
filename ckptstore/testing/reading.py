"""The part of the kit for formats that is about reading: little, in parts, and all of it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ckptstore.errors import CkptstoreError
from ckptstore.formats.base import Contents, Format
from ckptstore.testing.comparing import check_equal, read_everything, same, written
from ckptstore.testing.memory import MemoryFiles
from ckptstore.testing.watched import WatchedFiles

__all__ = ["FormatReading"]

_LARGE = "large"
_ELEMENTS = 2**18
_LITTLE = 2  # What is small reads blocks, which are less than this part of the large tensor.
_MEASURED = ({"step": 500, "val_loss": 2.5}, {"step": 1000, "val_loss": 1.25, "note": "ä 漢"})


class FormatReading:
    """Promises about what is read, and how much; a part of `FormatTests`."""

    @pytest.fixture
    def reads_little(self) -> bool:
        """Whether names and shapes are read without weights, and some tensors without the others.

        Every format for models of any size does; override it with False where one stream holds
        names and weights, so that all has to be read to know anything.
        """
        return True

    @pytest.fixture
    def large_contents(self, contents: Contents) -> Contents:
        """`contents` with a tensor of 1 MiB; override it where names or shapes are not free."""
        import torch

        large = torch.arange(_ELEMENTS, dtype=torch.float32)
        return dataclasses.replace(contents, model={**contents.model, _LARGE: large})

    @pytest.fixture
    def large_files(self, format_class: type[Format], large_contents: Contents) -> MemoryFiles:
        """Files that hold `large_contents`; override it where the format only reads."""
        if not format_class.writable:
            pytest.skip("override large_files to see how much this format reads of large weights")
        return written(format_class(), large_contents)

    def test_what_is_listed_reads_no_weights(
        self,
        format_class: type[Format],
        large_files: MemoryFiles,
        large_contents: Contents,
        reads_little: bool,
    ) -> None:
        """``inspect`` of a checkpoint in a bucket fetches no gigabytes."""
        watched = WatchedFiles(large_files)
        reader = format_class().read(watched)
        listed = reader.tensors()
        for part in ("optimizer", *reader.states()):
            reader.tensors_in(part)
        reader.structure()
        reader.files()
        reader.for_inference()
        if reads_little:
            largest = max(info.nbytes for info in listed.values())
            assert largest >= _large(large_contents), "large_contents has no large tensor"
            assert watched.read < largest // _LITTLE

    def test_named_tensors_are_read_without_the_others(
        self,
        format_class: type[Format],
        large_files: MemoryFiles,
        large_contents: Contents,
        reads_little: bool,
    ) -> None:
        """Whoever needs one small tensor does not wait for all of them."""
        reader = format_class().read(watched := WatchedFiles(large_files))
        sizes = {name: info.nbytes for name, info in reader.tensors().items()}
        small = min(sizes, key=lambda name: (sizes[name], name))
        reader.load_model([small])
        if reads_little:
            assert watched.read < _large(large_contents) // _LITTLE

    def test_each_tensor_is_read_alone(
        self, format_class: type[Format], files: MemoryFiles, stored: Contents
    ) -> None:
        """A part of the model is what the whole has under these names, and nothing else."""
        reader = format_class().read(files)
        for name in stored.model:
            assert same(reader.load_model([name]), {name: stored.model[name]}), name
        backwards = list(reversed(list(stored.model)))
        assert same(reader.load_model(backwards), dict(stored.model))
        assert reader.load_model([]) == {}
        with pytest.raises(CkptstoreError, match="no such tensor"):
            reader.load_model([backwards[0], "no such tensor"])

    def test_its_files_suffice(
        self, format_class: type[Format], files: MemoryFiles, stored: Contents
    ) -> None:
        """What `files` names is all that has to be copied, and each name stands there once."""
        names = format_class().read(files).files()
        assert len(names) == len(set(names))
        copy = MemoryFiles({name: files.data[name] for name in names}, named=files.named)
        assert format_class().matches(copy) is True
        check_equal(format_class().read(copy), stored)

    def test_all_that_it_writes_is_named(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """A file that no reader names would be proved and copied by nobody."""
        if format_class.writable:
            files = written(format_class(), contents)
            assert set(format_class().read(files).files()) == set(files.names())

    def test_what_inference_needs_suffices(
        self, format_class: type[Format], files: MemoryFiles, stored: Contents
    ) -> None:
        """``sync --no-optimizer`` leaves a model that works: weights, config and tokenizer."""
        reader = format_class().read(files)
        names = reader.for_inference()
        assert set(names) <= set(reader.files())
        if names:
            found = format_class().read(MemoryFiles({name: files.data[name] for name in names}))
            assert same(found.load_model(), stored.model)
            assert found.config == stored.config
            assert found.tokenizer_state == stored.tokenizer_state
            assert not found.has_optimizer

    def test_its_parts_agree(self, format_class: type[Format], files: MemoryFiles) -> None:
        """What is listed of optimizer and states is what loads, and nothing else is listed."""
        reader = format_class().read(files)
        optimizer = reader.load_optimizer()
        assert reader.has_optimizer is (optimizer is not None)
        assert len(reader.states()) == len(set(reader.states()))
        loaded = {name: reader.load_state(name) for name in reader.states()}
        if optimizer is not None:
            loaded["optimizer"] = optimizer
        for part, state in loaded.items():
            listed = [(i.dtype, i.shape, i.nbytes) for i in reader.tensors_in(part).values()]
            # A format that cannot say says nothing; it does not say a part.
            assert not listed or Counter(listed) == Counter(_tensors(state)), part
        for part in {"optimizer", "no such part"} - set(loaded):
            assert reader.tensors_in(part) == {}
        assert set(reader.structure()) <= {"model", *loaded}
        with pytest.raises(CkptstoreError, match="no such state"):
            reader.load_state("no such state")

    def test_what_was_measured_is_read_or_left_out(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """A format has room for the log of the training, or has none: never for something else."""
        if not format_class.writable:
            return
        measured = dataclasses.replace(contents, metrics_log=_MEASURED)
        reader = read_everything(format_class(), written(format_class(), measured))
        assert reader.load_metrics_log() in ((), _MEASURED)
        reader = format_class().read(written(format_class(), contents))
        assert reader.load_metrics_log() == tuple(format_class().stored(contents).metrics_log)


def _large(contents: Contents) -> int:
    """Return the bytes of the largest tensor."""
    return max(nbytes for _, _, nbytes in _tensors(contents.model))


def _tensors(value: Any) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Yield what is to be listed of each tensor in a nested state."""
    import torch

    if isinstance(value, torch.Tensor):
        nbytes = value.nelement() * value.element_size()
        yield str(value.dtype).removeprefix("torch."), tuple(value.shape), nbytes
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _tensors(inner)
