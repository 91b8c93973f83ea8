"""G5: everything that fuzzing found worth keeping ends in a value, or in one of our own errors."""

from __future__ import annotations

import contextlib
import io
import os
import random
import time
import zipfile

import pytest
import torch

from benchmarks.fuzz.corpus import KEPT, kept_inputs
from benchmarks.fuzz.documents import mutated_json
from benchmarks.fuzz.folders import mended, packed, unpacked
from benchmarks.fuzz.oracle import Finding, Target, check
from benchmarks.fuzz.pickled import mutated_pickle, opcodes
from benchmarks.fuzz.targets import TARGETS
from benchmarks.fuzz.zipped import members_of, mutated_pt, put_together
from ckptstore import ptfile
from ckptstore.errors import CkptstoreError, CorruptionError, UnsupportedError
from ckptstore.manifest import Manifest

_MUTATIONS = {"folder": 60, "torch": 200}
_MOST_KEPT = 300_000


@pytest.fixture(params=sorted(TARGETS))
def target(request) -> Target:
    found = TARGETS[request.param]
    for data in found.seeds():
        # What is imported at first use is imported here, and is no finding.
        with contextlib.suppress(Finding):
            check(found, data)
    return found


def plain(rng: random.Random):
    """Return what changes bytes as such, in the place of libFuzzer."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data or b"x")
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(changed))
            changed[at : at + rng.choice((0, 1, 1, 4))] = rng.randbytes(rng.choice((0, 1, 1, 4)))
            changed = changed or bytearray(b"x")
        return bytes(changed)

    return change


# -- the corpus ----------------------------------------------------------------------------


def test_seeds_end_in_a_value_or_an_error_of_ours(target):
    for data in target.seeds():
        check(target, data)


def test_the_corpus_ends_in_a_value_or_an_error_of_ours(target):
    inputs = kept_inputs(target.name)

    for data in inputs:
        check(target, data)

    assert inputs, f"no corpus is kept for {target.name}"


def test_changed_inputs_end_in_a_value_or_an_error_of_ours(target):
    rng = random.Random(target.name)
    inputs = [*target.seeds(), *kept_inputs(target.name)]

    for _ in range(_MUTATIONS.get(target.name, 400)):
        changed = target.mutate(rng.choice(inputs), rng, plain(rng))
        check(target, changed[: target.longest])


def test_the_corpus_is_small_and_nothing_else_lies_there():
    files = {path.name: path.stat().st_size for path in KEPT.iterdir()}

    assert set(files) == {f"{name}.zip" for name in TARGETS}
    assert sum(files.values()) < _MOST_KEPT


# -- the oracle sees what it is there for --------------------------------------------------------


def reading(read) -> Target:
    return Target("test", read, list, lambda data, rng, plain: data)


def slow(data: bytes) -> None:
    start = time.thread_time()
    while time.thread_time() - start < 2.1:
        pass


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda data: {}["x"], "KeyError is none of our errors"),
        (lambda data: os.system("true"), "os.system"),
        (lambda data: os.close(os.open(".", 0)), "open"),
        (lambda data: eval("1 + 1"), "compile"),
        (lambda data: __import__("xml.sax.xyz"), "none of our errors"),
        (lambda data: bytearray(200 * 2**20).count(1) and None, "MiB of memory"),
        (slow, "seconds of a core"),
    ],
    ids=["error", "process", "file", "code", "import", "memory", "time"],
)
def test_what_no_input_may_do_is_a_finding(read, message):
    with pytest.raises(Finding, match=message):
        check(reading(read), b"")


def test_an_error_of_ours_that_does_not_fit_is_a_finding():
    def read(data: bytes) -> None:
        raise UnsupportedError("x")

    target = Target("test", read, list, lambda data, rng, plain: data, (CorruptionError,))

    with pytest.raises(Finding, match="UnsupportedError is none of our errors"):
        check(target, b"")


def test_what_was_swallowed_is_a_finding_all_the_same():
    def read(data: bytes) -> None:
        with contextlib.suppress(Exception):
            eval("1 + 1")
        raise CorruptionError("x")

    with pytest.raises(Finding, match="compile"):
        check(reading(read), b"")


# -- the mutators get behind the outer checks -----------------------------------------------------


def saved(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_a_zip_that_was_put_together_again_is_the_same_to_everybody():
    data = saved({"w": torch.arange(3.0), "n": torch.ones(2)})

    again = put_together(members_of(data))

    assert zipfile.ZipFile(io.BytesIO(again)).testzip() is None
    assert torch.equal(torch.load(io.BytesIO(again), weights_only=True)["w"], torch.arange(3.0))
    assert ptfile.index(io.BytesIO(again), "x") == ptfile.index(io.BytesIO(data), "x")


def test_many_changed_files_pass_the_zip_and_reach_the_pickle():
    data, rng = saved({"w": torch.arange(3.0)}), random.Random(1)
    said = []
    for _ in range(300):
        try:
            ptfile.read(io.BytesIO(mutated_pt(data, rng, plain(rng))), "x")
            said.append("read")
        except CkptstoreError as error:
            said.append(str(error))

    assert said.count("read") > 20
    assert sum("its pickle is malformed" in line for line in said) > 60


def test_a_pickle_comes_apart_into_its_opcodes():
    data = ptfile_pickle(saved({"w": torch.arange(3.0)}))
    parts = opcodes(data)

    assert b"".join(parts) == data
    assert parts[0] == b"\x80\x02"
    assert parts[-1] == b"."
    assert mutated_pickle(data, random.Random(3), plain(random.Random(3))) != data


def ptfile_pickle(data: bytes) -> bytes:
    return next(m.data for m in members_of(data) if m.name.endswith(b"data.pkl"))


def test_a_folder_whose_weights_were_changed_has_a_manifest_that_says_so():
    files = unpacked(TARGETS["folder"].seeds()[1])
    files["model.pt"] = saved({"other": torch.ones(1)})

    manifest = Manifest.from_json(mended(files["manifest.json"], files), "manifest.json")

    entries = {entry.path: entry for entry in manifest.files.values()}
    assert unpacked(packed(files)) == files
    assert all(entry.digest.size for entry in entries.values())


def test_json_that_parses_deeper_than_it_can_be_copied_is_changed_as_text():
    deep = b"[" * 600 + b"]" * 600
    rng = random.Random(1)

    changed = {mutated_json(deep, rng, plain(rng)) for _ in range(50)}

    assert len(changed) > 10
