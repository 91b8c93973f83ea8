"""G5: whatever a file claims, nothing of it is run, and it is refused with one clear error."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptstore import ptfile
from ckptstore.errors import CkptstoreError, CorruptionError, UnsafeError


def read(data):
    return ptfile.read(io.BytesIO(data), "x.pt")


# -- pickles -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap", [lambda b: b, lambda b: {"w": torch.ones(2), "deep": [1, {"b": b}]}]
)
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(saved, bomb, wrap):
    data = saved(wrap(bomb))

    with pytest.raises(UnsafeError, match="holds more than tensors .*so reading it would run code"):
        read(data)

    assert not bomb.mark.exists()


def test_the_refusal_names_the_global_and_the_place(saved, bomb):
    data = saved({"step": 1, "state": {0: {"x": 1, "found": bomb}}})

    with pytest.raises(UnsafeError, match=r"\(pathlib\.Path\.touch at 'state\.0\.found'\)|getattr"):
        read(data)


@pytest.mark.parametrize(
    "name", ["os system", "builtins eval", "posix system", "torch load", "torch.hub load"]
)
def test_globals_outside_the_list_are_refused(zipped, name):
    module, attribute = name.split()
    pickled = f"\x80\x02c{module}\n{attribute}\nX\x04\x00\x00\x00true\x85R.".encode("latin-1")

    with pytest.raises(UnsafeError, match=rf"\({module}\.{attribute}\)"):
        read(zipped(pickled))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_bare_pickle_is_refused_unread(bomb, protocol):
    with pytest.raises(CkptstoreError, match="bare pickle|not a .pt file"):
        read(pickle.dumps(bomb, protocol))

    assert not bomb.mark.exists()


def test_the_format_before_1_6_is_refused_and_the_way_out_is_named():
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)

    with pytest.raises(
        UnsafeError, match=r"before 1\.6.*torch\.save\(torch\.load\(OLD, weights_only"
    ):
        read(buffer.getvalue())


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_other_protocols_are_refused_unread(zipped, bomb, protocol):
    with pytest.raises(UnsafeError, match=f"protocol {protocol}, which cannot be checked"):
        read(zipped(pickle.dumps({"b": bomb}, protocol)))

    assert not bomb.mark.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x80\x02", id="no stop"),
        pytest.param(b"\x80\x02.", id="nothing on the stack"),
        pytest.param(b"\x80\x02t.", id="no mark"),
        pytest.param(b"\x80\x02h\x07.", id="no such memo"),
        pytest.param(b"\x80\x02X\xff\xff\xff\xff.", id="text longer than the file"),
        pytest.param(b"\x80\x02K\x01K\x02R.", id="a call of a number"),
        pytest.param(b"\x80\x02ctorch\nfloat32\n)R.", id="a call of a dtype"),
        pytest.param(b"\x80\x02ctorch\nTensor\n)\x81.", id="a new object"),
        pytest.param(b"\x80\x02}}b.", id="attributes for a dict"),
        pytest.param(
            b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb.",
            id="a method replaced",
        ),
        pytest.param(b"\x80\x02(K\x01K\x02K\x03]u.", id="items for a number"),
        pytest.param(b"\x80\x02}}K\x01s.", id="a dict as a key"),
        pytest.param(b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.", id="2 GiB"),
        pytest.param(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", id="no arguments"),
        pytest.param(b"\x80\x02K\x01Q.", id="a reference to a number"),
        pytest.param(b"\x80\x02\x82\x01.", id="an extension code"),
        pytest.param(b"\x80\x02r\xff\xff\xff\xff.", id="a memo of four billion"),
    ],
)
def test_malformed_pickles_are_damage(zipped, pickled):
    with pytest.raises(CorruptionError, match="x.pt is damaged: its pickle is malformed at byte"):
        read(zipped(pickled))


@pytest.mark.parametrize(
    "pickled",
    [
        pytest.param(b"]" * 5000 + b"a" * 4999, id="lists"),
        pytest.param(b")" + b"\x85" * 5000, id="tuples"),
        pytest.param(b"}" + b"X\x01\x00\x00\x00a}" * 5000 + b"s" * 5000, id="dicts"),
        pytest.param(b"}q\x00X\x01\x00\x00\x00ah\x00s", id="a dict in itself"),
        pytest.param(
            b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(90)), id="laughs"
        ),
    ],
)
def test_deep_and_endless_nesting_is_damage(zipped, pickled):
    with pytest.raises(CorruptionError, match="nested deeper than 100, or holds itself"):
        read(zipped(b"\x80\x02" + pickled + b"."))


def test_a_deep_tuple_as_a_key_does_not_exhaust_the_stack(zipped):
    with pytest.raises(CorruptionError, match="as a key"):
        read(zipped(b"\x80\x02})" + b"\x85" * 500_000 + b"K\x01s."))


# -- tensors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"shape": (5,)}, "reaches beyond its storage of 4 elements"),
        ({"offset": 1}, "reaches beyond"),
        ({"stride": (2,)}, "reaches beyond"),
        ({"shape": (2**40, 2**40), "stride": (0, 0)}, "reaches beyond"),
        ({"offset": 2**70}, "negative, absurd"),
        ({"offset": -1}, "negative, absurd"),
        ({"shape": (-1,)}, "negative, absurd"),
        ({"stride": (-1,)}, "negative, absurd"),
        ({"shape": (True,)}, "negative, absurd"),
        ({"shape": (1,) * 65, "stride": (1,) * 65}, "a shape that is none"),
        ({"shape": (2, 2)}, "more dimensions than strides"),
        ({"count": 5}, "a storage of 20 bytes whose record 'data/0' holds 16"),
        ({"count": 2**62}, "a storage of"),
        ({"count": -4}, "a storage of -16 bytes"),
        ({"count": "4"}, "no storage"),
        ({"key": "1"}, "whose record 'data/1' is absent"),
        ({"key": "../data/0"}, "is absent"),
    ],
    ids=repr,
)
def test_tensors_that_claim_what_they_lack_are_damage(zipped, tensor_pickle, claim, message):
    data = zipped(tensor_pickle(**claim), {"data/0": bytes(16)})

    with pytest.raises(CorruptionError, match=message):
        read(data)


def test_the_same_tensor_with_true_claims_is_read(zipped, tensor_pickle):
    root = read(zipped(tensor_pickle(), {"data/0": bytes(16)})).root

    assert (root.dtype, root.shape) == ("float32", (4,))


# -- the zip -------------------------------------------------------------------------------


def test_a_file_cut_off_anywhere_is_damage(saved):
    data = saved({"a": torch.ones(300), "b": torch.zeros(3)})

    for length in {*range(0, len(data), 37), *range(len(data) - 120, len(data))}:
        with pytest.raises(CorruptionError, match="truncated|empty|not a .pt file"):
            read(data[:length])


def test_bytes_after_the_end_are_damage(saved):
    with pytest.raises(CorruptionError, match="truncated"):
        read(saved({"a": torch.ones(3)}) + b"more")


@pytest.mark.parametrize("data", [b"<html>not found</html>", b"{}", b"\x93NUMPY", b"\0" * 100])
def test_other_files_are_no_pt(data):
    with pytest.raises(CorruptionError, match=r"x\.pt is not a \.pt file: it begins with"):
        read(data)


def test_another_zip_is_no_pt():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", b"<w/>")

    with pytest.raises(CorruptionError, match=r"no \.pt: it holds no data\.pkl"):
        read(buffer.getvalue())


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02}.")
        archive.writestr("m/constants.pkl", b"\x80\x02).")

    with pytest.raises(UnsafeError, match="TorchScript archive, which holds code"):
        read(buffer.getvalue())


def test_a_compressed_member_is_damage(zipped):
    with pytest.raises(CorruptionError, match="compressed or encrypted"):
        read(zipped(b"\x80\x02}.", compression=zipfile.ZIP_DEFLATED))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("twice", ["data/0", "DATA/0"])
def test_a_member_that_stands_there_twice_is_damage(zipped, twice):
    buffer = io.BytesIO(zipped(b"\x80\x02}.", {"data/0": b"one"}))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(f"archive/{twice}", b"two")

    with pytest.raises(CorruptionError, match="stands there twice"):
        read(buffer.getvalue())


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "archive/../x", "/etc/passwd", "archive//x", "archive/..\\x", "C:/x"],
)
def test_a_member_that_leads_outside_is_unsafe(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        member = zipfile.ZipInfo("x")
        member.filename = name
        archive.writestr(member, b"data")

    with pytest.raises(UnsafeError, match="which leads outside its folder"):
        read(buffer.getvalue())


def central(data, name):
    """Return where a member's entry in the directory begins."""
    return data.rindex(b"PK\1\2", 0, data.rindex(name))


def test_overlapping_members_are_damage(zipped):
    data = bytearray(zipped(b"\x80\x02}.", {"data/0": bytes(100), "data/1": bytes(100)}))
    first = struct.unpack_from("<I", data, central(data, b"archive/data/0") + 42)[0]
    struct.pack_into("<I", data, central(data, b"archive/data/1") + 42, first + 20)

    with pytest.raises(CorruptionError, match="overlaps what follows it"):
        read(bytes(data))


def test_a_member_outside_the_file_is_damage(zipped):
    data = bytearray(zipped(b"\x80\x02}.", {"data/0": bytes(100)}))
    struct.pack_into("<I", data, central(data, b"archive/data/0") + 42, 2**31)

    with pytest.raises(CorruptionError, match="overlaps what follows it"):
        read(bytes(data))


def test_a_member_larger_than_the_file_is_damage(zipped):
    data = bytearray(zipped(b"\x80\x02}.", {"data/0": bytes(100)}))
    struct.pack_into("<II", data, central(data, b"archive/data/0") + 20, 2**31, 2**31)

    with pytest.raises(CorruptionError, match="overlaps what follows it"):
        read(bytes(data))


@pytest.mark.parametrize("place", [8, 14, 18, 22, 26, 28, 30])
def test_a_local_header_that_lies_is_damage(zipped, place):
    data = bytearray(zipped(b"\x80\x02}."))
    data[place] ^= 0x41

    with pytest.raises(CorruptionError, match=r"header of its record 'data\.pkl' contradicts"):
        read(bytes(data))


def test_a_directory_that_claims_too_much_is_damage(zipped):
    data = bytearray(zipped(b"\x80\x02}."))
    struct.pack_into("<HH", data, len(data) - 14, 60_000, 60_000)

    with pytest.raises(CorruptionError, match="claims 60000 records in"):
        read(bytes(data))


def test_a_flipped_bit_in_the_pickle_is_damage(saved):
    data = bytearray(saved({"weight": torch.ones(3)}))
    data[data.index(b"weight")] ^= 1

    with pytest.raises(CorruptionError, match=r"record 'data\.pkl' has the CRC-32"):
        read(bytes(data))


# -- anything ------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.integers(0, 10**6), value=st.integers(0, 255), more=st.binary(max_size=4))
def test_damage_anywhere_is_one_of_our_errors_or_harmless(saved, place, value, more):
    data = bytearray(saved({"a": torch.ones(30), "n": {"b": torch.zeros(3)}, "s": "text"}))
    place %= len(data)
    data[place : place + 1 + len(more)] = bytes([value]) + more

    with suppress(CkptstoreError):
        assert set(read(bytes(data)).tensors) == {"a", "n.b"}


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_pickles_are_one_of_our_errors_or_harmless(zipped, data):
    whole = pickle.dumps({"a": [1, (2, 3.5)], "b": {"c": None, "d": {4}}, "e": "text"}, 2)
    start = data.draw(st.integers(2, len(whole) - 1))
    junk = data.draw(st.binary(max_size=6) | st.sampled_from([b"R", b"b", b"s", b"u", b"t", b"Q"]))

    with suppress(CkptstoreError):
        read(zipped(whole[:start] + junk + whole[start + len(junk) :]))
