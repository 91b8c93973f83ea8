"""What the index of a `.pt` says, and what it costs."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import torch

from ckptstore import ptfile

DTYPES = [
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
]
LEGACY = Path(__file__).parents[1] / "fixtures" / "legacy_char" / "latest.pt"


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    reads = 0
    bytes_read = 0

    def read(self, size=-1, /):
        data = super().read(size)
        self.reads += 1
        self.bytes_read += len(data)
        return data

    def readinto(self, buffer, /):
        count = super().readinto(buffer)
        self.reads += 1
        self.bytes_read += count
        return count


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_is_listed_by_torchs_name(saved, name):
    tensor = torch.zeros(3, 5).to(getattr(torch, name))

    info = ptfile.index(io.BytesIO(saved({"x": tensor})), "x.pt")["x"]

    assert (info.dtype, info.shape, info.nbytes) == (name, (3, 5), tensor.nbytes)


def test_the_table_of_dtypes_agrees_with_torch():
    from ckptstore.ptfile.stubs import ITEMSIZES

    for name, size in ITEMSIZES.items():
        assert getattr(torch, name).itemsize == size, name


def test_the_allow_list_is_within_torchs_own():
    from torch._weights_only_unpickler import _get_allowed_globals

    from ckptstore.ptfile.allowed import ALLOWED

    missing = set(_get_allowed_globals()) - set(ALLOWED)

    assert set(ALLOWED) <= set(_get_allowed_globals())
    assert missing == {
        "torch._utils._rebuild_device_tensor_from_numpy",  # Needs numpy's, which are not allowed.
        "torch.storage.TypedStorage",  # Never written into a zip.
    }


def test_a_real_file_is_indexed_by_few_small_reads():
    file = Counted(LEGACY.read_bytes())

    content = ptfile.read(file, "latest.pt")

    assert content.root["step"] == 20
    assert len(content.tensors) > 100
    assert file.reads <= 8
    assert file.bytes_read <= 150_000


def test_the_index_of_a_large_file_does_not_read_its_tensors(saved):
    data = saved({f"layer.{i}.weight": torch.zeros(1000) for i in range(2000)})
    file = Counted(data)

    tensors = ptfile.index(file, "model.pt")

    assert len(tensors) == 2000
    assert file.reads <= 8
    assert file.bytes_read < len(data) / 10


def test_an_index_needs_no_torch():
    code = (
        "import sys; from ckptstore import ptfile\n"
        f"with open({str(LEGACY)!r}, 'rb') as file: print(len(ptfile.read(file, 'x').tensors))\n"
        "assert not {'torch', 'fsspec', 's3fs', 'tiktoken'} & set(sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_views_keep_shape_stride_and_offset(saved):
    base = torch.arange(12.0).reshape(3, 4)

    stubs = ptfile.read(io.BytesIO(saved({"t": base.t(), "v": base[1:, 1]})), "x.pt").stubs

    assert (stubs["t"].shape, stubs["t"].stride, stubs["t"].offset) == ((4, 3), (1, 4), 0)
    assert (stubs["v"].shape, stubs["v"].stride, stubs["v"].offset) == ((2,), (4,), 5)


def test_ties_are_visible(saved):
    weight = torch.ones(3)

    content = ptfile.read(io.BytesIO(saved({"a": weight, "b": weight, "c": torch.ones(2)})), "x.pt")

    assert content.structure().ties == (("a", "b"),)
    assert content.stubs["a"].record == content.stubs["b"].record


def test_an_optimizers_tensors_are_named_by_the_keys_that_lead_there(saved):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()

    tensors = ptfile.index(io.BytesIO(saved(optimizer.state_dict())), "optimizer.pt")

    assert set(tensors) == {"state.0.step", "state.0.exp_avg", "state.0.exp_avg_sq"}


def test_keys_that_join_to_one_name_stay_apart(saved):
    state = {"a.b": torch.ones(1), "a": {"b": torch.ones(2)}}

    tensors = ptfile.index(io.BytesIO(saved(state)), "x.pt")

    assert sorted(info.shape for info in tensors.values()) == [(1,), (2,)]


def test_a_wrapper_is_left_out_of_the_names(saved):
    state = {"state_dict": {"w": torch.ones(1)}, "model_dtype": torch.bfloat16}

    content = ptfile.read(io.BytesIO(saved(state)), "model.pt")

    assert set(content.tensors) == {"w"}
    assert str(content.root["model_dtype"]) == "torch.bfloat16"


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, -5, 2**70, 1.5, "ä 漢", b"\xff\x00", bytearray(b"ab"), bytearray()),
        *(2 + 3j, {1, 2}, (1, (2, "x")), [1, [2]], {"a": {1: None}}, Counter("aab")),
        *({(1, "a"): 2}, OrderedDict(b=1, a=2)),
    ],
    ids=repr,
)
def test_plain_values_come_back_as_they_are(saved, value):
    root = ptfile.read(io.BytesIO(saved(value)), "x.pt").root

    assert root == value
    assert type(root) is type(value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (torch.float16, "torch.float16"),
        (torch.device("cuda", 1), "cuda:1"),
        (torch.device("cpu"), "cpu"),
        (torch.strided, "torch.strided"),
        (torch.Size([2, 3]), "(2, 3)"),
    ],
)
def test_torchs_small_objects_are_named(saved, value, shown):
    assert str(ptfile.read(io.BytesIO(saved(value)), "x.pt").root) == shown


def test_module_versions_are_kept(saved):
    state = torch.nn.BatchNorm1d(2).state_dict()

    root = ptfile.read(io.BytesIO(saved(state)), "x.pt").root

    assert root._metadata == {"": {"version": 2}}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.eye(2).to_sparse_csr(),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        lambda: torch.ones(2, dtype=torch.complex64).conj(),
        lambda: torch.ones(2, device="meta"),
        lambda: torch.nn.Buffer(torch.ones(2)),
        lambda: torch.nn.Parameter(torch.ones(2)),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    ],
)
def test_uncommon_tensors_are_listed(saved, make):
    tensor = make()

    info = ptfile.index(io.BytesIO(saved({"x": tensor})), "x.pt")["x"]

    assert f"torch.{info.dtype}" == str(tensor.dtype)
    if not tensor.is_nested:
        assert info.shape == tuple(tensor.shape)


def test_a_file_that_zip_programs_wrote_again_is_read(saved, zipped):
    import zipfile

    with zipfile.ZipFile(io.BytesIO(saved({"x": torch.ones(2)}))) as archive:
        members = {name.removeprefix("archive/"): archive.read(name) for name in archive.namelist()}
    pickled = members.pop("data.pkl")
    members.pop("byteorder")

    again = zipped(pickled, members)

    assert ptfile.index(io.BytesIO(again), "x.pt")["x"].shape == (2,)


def test_check_records_names_the_damaged_record(saved):
    data = bytearray(saved({"x": torch.ones(1000)}))
    ptfile.check_records(io.BytesIO(bytes(data)), "x.pt")
    data[2000] ^= 1

    with pytest.raises(ptfile.CorruptionError, match=r"x\.pt is damaged: its record 'data/0' has"):
        ptfile.check_records(io.BytesIO(bytes(data)), "x.pt")
