"""The part of the kit for formats that is about storages: deaths, full disks, conversions."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import PurePosixPath

import pytest

import ckptstore
from ckptstore import storage
from ckptstore.checkpoint import Checkpoint
from ckptstore.errors import CkptstoreError, NotFoundError, UnsupportedError
from ckptstore.formats.base import Contents, Format
from ckptstore.testing.comparing import another, check_equal, differences, example_contents, same
from ckptstore.testing.faults import Crash, changes
from ckptstore.testing.injection import Killed, Operation, inject
from ckptstore.testing.memory import InMemory, MemoryFiles
from ckptstore.testing.watched import FullDisk

__all__ = ["FormatStoring"]

_MOST_BYTES = 150
_FINGERPRINT = "the tokenizer's fingerprint"  # Which stands in a manifest, not in a format's files.


class FormatStoring(InMemory):
    """Promises about what is on a storage; a part of `FormatTests`."""

    def test_a_write_that_fails_is_not_taken_for_done(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """A disk that is full at any byte, or at the end of a file, reaches the caller."""
        if not format_class.writable:
            return
        format_class().write(contents, whole := FullDisk())
        places = {
            place
            for begin, end in whole.ends
            for place in (begin, (begin + end) // 2, end - 1)
            if begin < end
        }
        for at in sorted(places)[:: 1 + len(places) // _MOST_BYTES]:
            disk = FullDisk(at)
            with pytest.raises((OSError, CkptstoreError), match="no space left"):
                format_class().write(contents, disk)
            assert disk.failed

    def test_a_save_that_is_killed_leaves_the_old_state_or_the_new(
        self, format_class: type[Format], contents: Contents, memory_location: str
    ) -> None:
        """G2: dead before any operation that changes something, the checkpoint is a whole one.

        Of a format that is one file there is the new file or none: nobody's file is replaced.
        """
        if not format_class.writable:
            return
        states = {"old": contents, "new": another(contents)}
        stored = {name: format_class().stored(state) for name, state in states.items()}
        _saved(source := f"{memory_location}/bundle", states["new"], "bundle")
        for number in itertools.count(1):
            target = _place(format_class, f"{memory_location}/{number}")
            if format_class.one_file is None:
                _saved(target, states["old"], format_class.name)
            try:
                with inject(Crash(_nth_change(number))):
                    if format_class.one_file is None:
                        _saved(target, states["new"], format_class.name)
                    else:
                        ckptstore.convert(source, target, format_class.name)
            except Killed:
                _check_one_of(target, format_class, stored)
                continue
            check_equal(ckptstore.open(target), stored["new"])
            assert number > 1
            return

    def test_a_bundle_is_made_of_it(
        self,
        format_class: type[Format],
        files: MemoryFiles,
        stored: Contents,
        memory_location: str,
    ) -> None:
        """``convert`` opens its files by what they are, and writes all that they hold."""
        location = f"{memory_location}/files"
        place = storage.connect(location, None)
        for name, data in files.data.items():
            place.create(name, data)
        source = location if files.named is None else f"{location}/{files.named}"
        opened = ckptstore.open(source)
        assert opened.format == format_class.name
        check_equal(opened, stored)
        ckptstore.convert(source, f"{memory_location}/bundle", "bundle")
        check_equal(ckptstore.open(f"{memory_location}/bundle"), stored)

    def test_a_bundle_comes_back_from_it(
        self,
        format_class: type[Format],
        contents: Contents,
        stored: Contents,
        memory_location: str,
    ) -> None:
        """From a bundle to this format and back: tensors and JSON are equal, nothing is lost."""
        if not format_class.writable:
            return
        _saved(f"{memory_location}/bundle", contents, "bundle")
        target = _place(format_class, f"{memory_location}/converted")
        done = ckptstore.convert(f"{memory_location}/bundle", target, format_class.name)
        assert set(done.left_out or ()) <= {_FINGERPRINT, *_left_out(stored, contents)}
        converted = ckptstore.open(target)
        assert converted.format == format_class.name
        check_equal(converted, stored)
        ckptstore.convert(target, f"{memory_location}/back", "bundle")
        check_equal(ckptstore.open(f"{memory_location}/back"), stored)

    def test_what_has_no_room_is_refused_or_named(
        self, format_class: type[Format], memory_location: str
    ) -> None:
        """Of a state with something of everything, a conversion loses nothing silently."""
        if not format_class.writable:
            return
        everything = dataclasses.replace(example_contents(), metrics_log=({"step": 1},))
        _saved(source := f"{memory_location}/bundle", everything, "bundle")
        target = _place(format_class, f"{memory_location}/converted")
        refused = None
        try:
            done = ckptstore.convert(source, target, format_class.name)
        except UnsupportedError as error:
            refused = str(error)
        if refused is not None:
            assert format_class.name in refused
            with pytest.raises(NotFoundError):
                ckptstore.open(target)
            return
        stored, found = format_class().stored(everything), ckptstore.open(target)
        missing = _left_out(stored, everything) | _lost(found, stored)
        if found.step == everything.step:
            missing -= {"step"}  # It stands in the manifest.
        left_out = done.left_out or ()
        assert missing <= set(left_out), f"of what is lost, only {left_out} was named"


def _place(format_class: type[Format], location: str) -> str:
    """Return what to convert to: a folder, or for a format that is one file, that."""
    if format_class.one_file is None:
        return location
    return f"{location}/converted{PurePosixPath(format_class.one_file).suffix}"


def _saved(location: str, contents: Contents, format: str) -> None:
    ckptstore.save(
        location,
        model=contents.model,
        config=contents.config,
        tokenizer=contents.tokenizer_state,
        optimizer=contents.optimizer,
        step=contents.step,
        state=contents.states,
        training_state=contents.training_state,
        metrics_log=contents.metrics_log,
        format=format,
    )


def _nth_change(number: int) -> Callable[[Operation], bool]:
    """Return what picks the n-th operation that changes something.

    What dies before a read leaves what the change before that left.
    """
    left = itertools.count(1 - number)
    return lambda operation: changes(operation) and next(left) == 0


def _check_one_of(target: str, format_class: type[Format], states: dict[str, Contents]) -> None:
    try:
        found = ckptstore.open(target)
    except NotFoundError:
        if format_class.one_file is None:
            raise
        return
    differing = {name: differences(found, state) for name, state in states.items()}
    assert [] in differing.values(), "neither the old state nor the new one"


def _lost(found: Checkpoint, stored: Contents) -> set[str]:
    """Return what is not as it should be stored, as `Transfer.left_out` calls it."""
    fields = found.training_state or {}
    states = {name: found.load_state(name) for name in found.states()}
    return {
        name
        for name, (now, then) in {
            "config": (found.config, stored.config),
            "tokenizer": (found.tokenizer_state, stored.tokenizer_state),
            "step": (found.step, stored.step),
            "metrics.jsonl": (found.load_metrics_log(), stored.metrics_log),
            "optimizer": (found.load_optimizer(), stored.optimizer),
            **{f"the field {n}": (fields.get(n), v) for n, v in stored.training_state.items()},
            **{f"the state {n}": (states.get(n), v) for n, v in stored.states.items()},
        }.items()
        if not same(now, then)
    }


def _left_out(stored: Contents, contents: Contents) -> set[str]:
    """Return what a format says that it has no room for, as `Transfer.left_out` calls it."""
    names = {
        "config": "config",
        "tokenizer": "tokenizer_state",
        "step": "step",
        "metrics.jsonl": "metrics_log",
        "optimizer": "optimizer",
    }
    gone = {name for name, of in names.items() if getattr(contents, of) and not getattr(stored, of)}
    gone |= {f"the field {n}" for n in {*contents.training_state} - {*stored.training_state}}
    return gone | {f"the state {name}" for name in {*contents.states} - {*stored.states}}
