"""What cannot be saved is refused before a byte is written, and says where it is."""

from __future__ import annotations

import collections
import enum
import io
import pathlib
import struct
import sys
from typing import NamedTuple

import numpy
import pytest
import torch

from ckptstore import ptfile, tensors
from ckptstore.errors import UnsafeError, UnsupportedError
from ckptstore.storage.base import Sink


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int


class Broken(Sink):
    """A sink that fails at the given write."""

    def __init__(self, at, error):
        self.left = at
        self.error = error

    def write(self, data):
        self.left -= 1
        if self.left < 0:
            raise self.error


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (numpy.float64(1.0), r"a numpy\.float64 at 'state\.0\.x'.*; save value\.item\(\)"),
        (numpy.zeros(2), r"a numpy\.ndarray at .*torch\.from_numpy\(value\)"),
        (pathlib.Path("x"), r"a pathlib\.\w+ at .*save str\(value\)"),
        (collections.defaultdict(int), r"a collections\.defaultdict at .*save dict\(value\)"),
        (Point(1), r"a .*Point at .*save tuple\(value\)"),
        (Colour.RED, r"a .*Colour at .*save int\(value\)"),
        (frozenset([1]), r"a builtins.frozenset at .*save set\(value\)"),
        (torch.nn.Linear(1, 1), r"a torch.*Linear at .*save its state_dict\(\)"),
        (lambda: None, "a builtins.function at .*save numbers, text, lists, dicts and tensors"),
        (
            torch.nn.UninitializedParameter(),
            r"a torch.*UninitializedParameter at .*run the model once",
        ),
        (b"", "no bytes at .*save it as text"),
        (2**3000, "an absurdly large number at .*save it as text"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_could_not_be_read_back_is_refused_unwritten(value, message):
    sink = Broken(0, AssertionError("written"))

    with pytest.raises(UnsafeError, match=f"^the optimizer holds {message}"):
        tensors.save({"state": {0: {"x": value}}}, sink, what="the optimizer")


def test_what_passes_the_check_passes_the_index(saved):
    for value in (b"\xff", bytearray(), {1}, 2j, torch.Size([1]), torch.float8_e5m2, 2**1999, ""):
        data = saved({"x": value})

        assert ptfile.index(io.BytesIO(data), "x.pt") == {}
        torch.load(io.BytesIO(data), weights_only=True)


def test_a_state_that_holds_itself_is_refused():
    state = {}
    state["a"] = state

    with pytest.raises(UnsupportedError, match="nested deeper than 100, or holds itself"):
        tensors.save(state, Broken(0, AssertionError("written")))


def test_one_memory_under_two_dtypes_is_refused(saved):
    weight = torch.ones(4)

    with pytest.raises(UnsupportedError, match="torch cannot save the state: Cannot save multiple"):
        saved({"a": weight, "b": weight.view(torch.int32)})


@pytest.mark.parametrize("at", [0, 1, 3, 10, 24])
@pytest.mark.parametrize(
    "error", [OSError(28, "no space left on device"), KeyboardInterrupt(), RuntimeError("mine")]
)
def test_the_sinks_first_error_is_the_one_raised(at, error):
    state = {str(n): torch.ones(5_000) for n in range(13)}

    with pytest.raises(type(error)) as caught:
        tensors.save(state, Broken(at, error))

    assert caught.value is error


def test_a_storage_arrives_without_a_copy():
    weight = torch.ones(100_000)

    class Watching(Sink):
        same_memory = False

        def write(self, data):
            if len(data) == weight.nbytes:
                weight[0] = 5.0
                self.same_memory = bytes(data[:4]) == struct.pack("=f", 5.0)

    sink = Watching()
    tensors.save({"w": weight}, sink)

    assert sink.same_memory


def test_torch_notes_other_saves_as_before(saved):
    saved({"x": torch.ones(1)})
    buffer = io.BytesIO()
    torch.save({"x": torch.ones(1)}, buffer)

    assert ptfile.read(buffer, "x.pt").stubs["x"].storage.device == "cpu"
    assert (
        torch.serialization.location_tag(torch.ones(1, device="meta").untyped_storage()) == "meta"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_state_on_a_gpu_is_read_where_there_is_none(saved, loaded):
    weight = torch.randn(1000, device="cuda")
    state = {"w": weight, "row": torch.randn(100, 100, device="cuda")[3]}

    data = saved(state)

    assert data == saved({name: tensor.cpu() for name, tensor in state.items()})
    assert ptfile.read(io.BytesIO(data), "x.pt").stubs["w"].storage.device == "cpu"
    assert torch.equal(torch.load(io.BytesIO(data), weights_only=True)["w"], weight.cpu())
    assert torch.equal(loaded(data, map_location="cuda")["w"], weight)
    assert torch.equal(loaded(data, map_location="cuda", names=["row"])["row"], state["row"])


_WRITING = ("serialization.py", "saving.py", "writing.py", "pickling.py")
_FUNCTIONS = ("_save", "__exit__", "write", "write_plain", "pickled", "persistent_id", "record")


@pytest.fixture
def interrupted_at():
    """A function that acts, is interrupted at the line of this number, and tells what came out.

    Lines are counted in torch's Python code and in ours, once the writing has begun.
    """

    def attempt(number, act):
        left = number

        def trace(frame, event, argument):
            nonlocal left
            within = frame.f_code.co_filename.endswith(_WRITING)
            if within and event == "line" and frame.f_code.co_name in _FUNCTIONS:
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            act()
        except BaseException as error:  # Whatever it is, it is what the test looks at.
            return error
        finally:
            sys.settrace(before)
        return None

    return attempt


@pytest.mark.parametrize(
    "state", [{"a": torch.ones(10)}, {"a": torch.eye(3).to_sparse()}], ids=["plain", "by torch"]
)
def test_an_interrupt_surfaces_as_itself_at_whatever_line_of_a_save_it_comes(interrupted_at, state):

    class Taking(Sink):
        def write(self, data):
            pass

    number = 0
    while error := interrupted_at(number := number + 1, lambda: tensors.save(state, Taking())):
        assert isinstance(error, KeyboardInterrupt), f"line {number}: {error!r}"
    assert number > 50


def test_an_interrupt_that_is_being_handled_hides_no_error(saved):
    weight = torch.ones(4)

    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with pytest.raises(UnsupportedError, match="torch cannot save the state"):
            saved({"a": weight, "b": weight.view(torch.int32)})
