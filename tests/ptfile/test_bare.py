"""A pickle that stands alone: plain data and stand-ins come out of it, and nothing is run."""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import pickle
import subprocess
import sys
from collections import Counter, OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from ckptstore import ptfile
from ckptstore.errors import CorruptionError, UnsafeError, UnsupportedError
from ckptstore.ptfile import Instance, Name

PLAIN: list[Any] = [
    None,
    {"vocab_size": 3, "itos": {0: "\n", 1: "a", 2: "è"}, "stoi": {"\n": 0, "a": 1, "è": 2}},
    [0, 255, 256, 65536, -1, -(2**40), 2**200, 1.5, True, False],
    ["", "x" * 300, "日本", "\U0001f600", "\ud800"],
    [b"", b"abc", b"x" * 300, bytearray(b"12")],
    [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    {"set": {1, 2}, "frozen": frozenset({"a"}), "complex": 1 + 2j},
    [OrderedDict(a=1, b=2), Counter("aab")],
    [[], {}, [[]], {"a": {"b": {}}}],
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", PLAIN, ids=[str(number) for number in range(len(PLAIN))])
def test_plain_data_of_every_newer_protocol_is_read(value, protocol):
    if protocol < 4 and isinstance(value, dict) and "frozen" in value:
        value = {key: value[key] for key in ("set", "complex")}

    found = ptfile.read_pickle(pickle.dumps(value, protocol), "meta.pkl")

    assert found == value
    assert type(found) is type(value)


def test_what_stands_there_twice_is_one_object():
    inner = ["a"]

    found = ptfile.read_pickle(pickle.dumps([inner, inner]), "meta.pkl")

    assert found[0] is found[1]


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


@pytest.mark.parametrize("protocol", [2, 4])
def test_an_object_of_a_listed_class_is_a_stand_in(protocol):
    data = pickle.dumps({"p": Point(3), "path": PurePosixPath("a/b")}, protocol)
    names = [f"{__name__}.Point", "pathlib.PurePosixPath"]

    found = ptfile.read_pickle(data, "x", names=names)

    point, path = found["p"], found["path"]
    assert isinstance(point, Instance)
    assert (point.name, point.args, point.state) == (f"{__name__}.Point", (), {"x": 3})
    assert (path.name, path.args, path.state) == ("pathlib.PurePosixPath", ("a", "b"), None)


def test_a_name_alone_is_a_name():
    found = ptfile.read_pickle(pickle.dumps([os.getpid]), "x", names=["posix.getpid", "nt.getpid"])

    assert isinstance(found[0], Name)
    assert found[0].name.endswith(".getpid")


def test_a_stand_in_may_be_the_key_of_a_dict_and_equals_itself_alone():
    data = pickle.dumps({PurePosixPath("a"): 1, PurePosixPath("b"): 2})

    found = ptfile.read_pickle(data, "x", names=["pathlib.PurePosixPath"])

    assert {key.args: value for key, value in found.items()} == {("a",): 1, ("b",): 2}


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_is_not_on_the_list_is_refused_and_named(protocol, tmp_path):
    data = pickle.dumps({"itos": [Evil(tmp_path / "mark")]}, protocol)

    with pytest.raises(UnsafeError, match=r"meta.pkl holds more than plain data \(\w+\.mkdir"):
        ptfile.read_pickle(data, "meta.pkl")

    assert not (tmp_path / "mark").exists()


def test_a_listed_function_is_not_called_either(tmp_path):
    data = pickle.dumps(Evil(tmp_path / "mark"))

    found = ptfile.read_pickle(data, "x", names=["posix.mkdir", "nt.mkdir"])

    assert found.args == (str(tmp_path / "mark"),)
    assert not (tmp_path / "mark").exists()


def test_other_harmless_classes_are_refused_too():
    with pytest.raises(UnsafeError, match="datetime.date"):
        ptfile.read_pickle(pickle.dumps(datetime.date(2026, 1, 1)), "meta.pkl")


@pytest.mark.parametrize("protocol", [0, 1])
def test_the_oldest_protocols_are_refused(protocol):
    with pytest.raises(CorruptionError, match="no pickle that can be read here: it begins with"):
        ptfile.read_pickle(pickle.dumps({"a": 1}, protocol), "meta.pkl")


def test_a_protocol_that_nobody_knows_is_refused():
    with pytest.raises(UnsafeError, match="protocol 6"):
        ptfile.read_pickle(b"\x80\x06N.", "meta.pkl")


def test_nothing_at_all_is_damage():
    with pytest.raises(CorruptionError, match="meta.pkl is empty"):
        ptfile.read_pickle(b"", "meta.pkl")


def test_a_pickle_that_is_too_large_is_not_read():
    with pytest.raises(UnsupportedError, match="more than 64 MiB"):
        ptfile.read_pickle(bytes(64 * 2**20 + 1), "meta.pkl")


WHOLE = pickle.dumps({"itos": {0: "a"}, "stoi": {"a": 0}, "more": [b"x", (1, 2.5, None)]})


@pytest.mark.parametrize("length", range(1, len(WHOLE)))
def test_a_pickle_that_is_cut_off_is_damage(length):
    with pytest.raises(CorruptionError, match="malformed"):
        ptfile.read_pickle(WHOLE[:length] if length > 1 else b"\x80", "meta.pkl")


@pytest.mark.parametrize("at", range(len(WHOLE)))
def test_a_changed_byte_is_damage_or_other_plain_data(at):
    data = bytearray(WHOLE)
    data[at] ^= 0x55
    with contextlib.suppress(CorruptionError, UnsafeError):
        ptfile.read_pickle(bytes(data), "meta.pkl")


@pytest.mark.parametrize(
    "attack",
    [
        b"\x80\x04" + b"]\x94" + b"h\x00" * 10 + b"e.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x8b\xff\xff\xff\x7f.",
        b"\x80\x04}N\x93.",
        b"\x80\x04NN\x81.",
        b"\x80\x04\x8c\x01aK\x01\x93.",
        b"\x80\x04NNb.",
        b"\x80\x04NNR.",
        b"\x80\x04" + b"\x90.",
        b"\x80\x04}]N\x86s.",
        b"\x80\x04U\x01a.",
        b"\x80\x04NQ.",
        b"\x80\x04Pid\n.",
        b"\x80\x04cposix\nsystem\n.",
    ],
)
def test_hostile_opcodes_are_refused(attack):
    with pytest.raises((CorruptionError, UnsafeError), match="^meta.pkl"):
        ptfile.read_pickle(attack, "meta.pkl")


def test_a_state_that_is_set_twice_is_refused():
    name = b"cpathlib\nPurePosixPath\n"

    with pytest.raises(CorruptionError, match="state is set twice"):
        ptfile.read_pickle(b"\x80\x02" + name + b")\x81}b}b.", "x", names=["pathlib.PurePosixPath"])


BOMBS = {
    "empty dicts": b"\x80\x04(" + b"}" * 1_200_000 + b"l.",
    "the same list in itself": b"\x80\x04]\x94" + b"(" + b"h\x00" * 500_000 + b"e" + b"2" + b".",
    "a list that doubles": b"\x80\x04]\x94N" + b"a" + b"(h\x00h\x00e" * 200_000 + b".",
    "marks": b"\x80\x04" + b"(" * 1_200_000 + b".",
    "memo": b"\x80\x04N" + b"\x94" * 1_200_000 + b".",
    "frozen sets": b"\x80\x04" + b"(\x91" * 400_000 + b".",
    "stand-ins": b"\x80\x02cbuiltins\nX\nq\x00" + b"h\x00)\x81" * 500_000 + b".",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_pickle_gets_no_large_memory(bomb):
    code = """
import resource, sys
sys.path[:0] = sys.argv[1:]
from ckptstore import ptfile
from ckptstore.errors import CorruptionError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = sys.stdin.buffer.read()
try:
    ptfile.read_pickle(data, "x", names=["builtins.X"])
except CorruptionError:
    pass
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
# 64 MiB are free, and 40 bytes for each byte; as much again is what the allocator may waste.
assert grown * 1024 < 2 * (64 * 2**20 + 40 * len(data)), grown
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *sys.path], input=BOMBS[bomb], capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()


def test_no_torch_is_needed():
    code = "import sys; from ckptstore import ptfile; ptfile.read_pickle(b'\\x80\\x04N.', 'x'); "
    code += "sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestNumbers:
    @pytest.mark.parametrize(
        "dtype",
        [
            *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
            *("float16", "bfloat16", "float32", "float64"),
        ],
    )
    def test_a_tensor_of_one_element_is_a_number_without_torch(self, saved, dtype):
        import torch

        tensor = torch.tensor(1.0 if "float" in dtype else 1).to(getattr(torch, dtype))
        file = io.BytesIO(saved({"loss": tensor, "many": torch.ones(2)}))
        pt = ptfile.read(file, "x.pt")

        found = pt.number(file, pt.root["loss"])

        assert found == tensor.item()
        assert type(found) is type(tensor.item())
        assert pt.number(file, pt.root["many"]) is None

    def test_one_element_of_a_larger_tensor_is_the_right_one(self, saved):
        import torch

        file = io.BytesIO(saved(torch.tensor([1.5, 2.5, 3.5])[1]))
        pt = ptfile.read(file, "x.pt")

        assert pt.number(file, pt.root) == 2.5

    def test_what_is_no_tensor_is_no_number(self, saved):
        file = io.BytesIO(saved({"a": 1}))
        pt = ptfile.read(file, "x.pt")

        assert pt.number(file, 1) is None
        assert pt.number(file, None) is None

    def test_a_damaged_record_is_named(self, saved):
        import torch

        data = bytearray(saved(torch.tensor(0.3333, dtype=torch.float64)))
        at = data.find(torch.tensor(0.3333, dtype=torch.float64).numpy().tobytes())
        data[at] ^= 1
        file = io.BytesIO(bytes(data))
        pt = ptfile.read(file, "x.pt")

        with pytest.raises(CorruptionError, match="its record 'data/0' has the CRC-32"):
            pt.number(file, pt.root)


class TestFields:
    def test_plain_values_are_fields_while_there_is_room(self):
        values = {"a": 1, "known": 2, 3: "no text", "none": None, "long": "x" * 600, "b": (1, 2)}

        fields, states = ptfile.parted(values, ["known"], {"step": 5})

        assert fields == {"step": 5, "a": 1, "b": [1, 2]}
        assert states == {"long": "long"}

    def test_what_is_called_a_state_dict_is_a_state_under_its_short_name(self):
        fields, states = ptfile.parted({"scheduler_state_dict": {"n": 1}}, (), {})

        assert (fields, states) == ({}, {"scheduler": "scheduler_state_dict"})

    def test_names_that_no_file_can_have_are_made_plain_and_stay_apart(self):
        values = {"a/b": float("nan"), "a_b": {1, 2}, "..": float("nan")}

        _, states = ptfile.parted(values, (), {})

        assert states == {"a_b": "a/b", "a_b_": "a_b", "state": ".."}

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), {1}, b"x", object()])
    def test_what_json_has_no_word_for_is_marked(self, value):
        assert ptfile.as_json({"a": [value]}) is ptfile.NOT_JSON
        assert repr(ptfile.NOT_JSON) == "NOT_JSON"

    def test_what_is_nested_without_end_is_no_json(self):
        endless: list[Any] = []
        endless.append(endless)

        assert ptfile.as_json(endless) is ptfile.NOT_JSON
