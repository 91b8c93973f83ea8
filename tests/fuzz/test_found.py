"""G5: what fuzzing found once stays found; the inputs themselves are in the corpus."""

from __future__ import annotations

import io
import json
import pickle
import struct
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.fuzz.zipped import Member, members_of, put_together
from ckptstore import ptfile, tensors
from ckptstore.digests import Digest
from ckptstore.errors import CorruptionError, UnsafeError, UnsupportedError
from ckptstore.manifest import FileEntry, Manifest, TensorInfo


def pt(pickled: bytes, **records: bytes) -> io.BytesIO:
    members = [Member(b"archive/data.pkl", pickled), Member(b"archive/byteorder", b"little")]
    members += [Member(f"archive/data/{key}".encode(), data) for key, data in records.items()]
    return io.BytesIO(put_together(members))


def text(value: str) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def naming(device: str, *index: bytes) -> io.BytesIO:
    call = b"\x86R" if index else b"\x85R"
    return pt(
        b"\x80\x02}"
        + text("d")
        + b"ctorch\ndevice\n"
        + text(device)
        + b"".join(index)
        + call
        + b"s."
    )


@pytest.mark.parametrize("name", ["nosuch", "cuda:01"])
def test_a_device_that_torch_does_not_know_is_damage(name):
    with pytest.raises(CorruptionError, match="names the device .* which there cannot be"):
        tensors.load(naming(name), part=lambda root: root, where="x.pt")


@pytest.mark.parametrize("name", ["torch.strided", "cuda:1099511627776", "cuda:128", "", "\x1b[2J"])
def test_a_device_that_is_none_is_damage_and_never_another_one(name):
    # torch keeps seven bits of the number: it takes cuda:300 for cuda:44.
    with pytest.raises(CorruptionError, match="a device that is none"):
        ptfile.read(naming(name), "x.pt")
    with pytest.raises(CorruptionError, match="a device that is none"):
        ptfile.read(naming("cuda", b"M\x2c\x01"), "x.pt")


def test_the_index_says_of_a_sparse_tensor_what_torch_will():
    indices, values = torch.tensor([[0, 1], [1, 0]]), torch.ones(2)
    sparse = torch.sparse_coo_tensor(indices, values, (2, 2), check_invariants=True)
    buffer = io.BytesIO()
    torch.save({"s": sparse}, buffer)
    members = members_of(buffer.getvalue())
    # The flag of its values; that of its indices is followed by another opcode.
    flagged = [
        replace(m, data=m.data.replace(b"\x89h", b"\x88h")) if m.name.endswith(b".pkl") else m
        for m in members
    ]
    data = put_together(flagged)

    stub = ptfile.read(io.BytesIO(data), "x.pt").root["s"]
    loaded = tensors.load(io.BytesIO(data), where="x.pt")["s"]

    assert loaded.requires_grad
    assert stub.requires_grad


def test_tensors_of_a_device_that_is_not_here_need_a_map_location():
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    away = buffer.getvalue()
    away = pt(
        b"\x80\x02}"
        + text("w")
        + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text("0")
        + text("hpu:7")
        + b"K\x02tQK\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs.",
        **{"0": bytes(8)},
    )

    with pytest.raises(UnsupportedError, match="device 'hpu:7'.* say with map_location"):
        tensors.load(away, map_location=None, part=lambda root: root, where="x.pt")
    loaded = tensors.load(away, part=lambda root: root, where="x.pt")

    assert loaded["w"].device.type == "cpu"


def test_a_record_that_is_called_a_folder_is_damage():
    # torch skips it, and its tensor is whatever was in that memory before.
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(4), "read by torch": torch.eye(2).to_sparse()}, buffer)
    members = members_of(buffer.getvalue())
    lied = [
        replace(m, lies={"c.outer": 0x10} if m.name.endswith(b"data/0") else {}) for m in members
    ]

    with pytest.raises(CorruptionError, match="'archive/data/0' is called a folder"):
        tensors.load(io.BytesIO(put_together(lied)), where="x.pt")


def test_a_record_that_torch_passes_over_is_never_handed_out(monkeypatch):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(4), "read by torch": torch.eye(2).to_sparse()}, buffer)
    members = members_of(buffer.getvalue())
    lied = [
        replace(m, lies={"c.outer": 0x10} if m.name.endswith(b"data/0") else {}) for m in members
    ]
    monkeypatch.setattr("ckptstore.ptfile.archive._IS_FOLDER", 0)

    with pytest.raises(CorruptionError, match="torch takes its record 'data/0' for read without"):
        tensors.load(io.BytesIO(put_together(lied)), where="x.pt")


def test_tensors_without_memory_are_loaded_without_being_read():
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(3)}, buffer)

    with FakeTensorMode():
        fake = tensors.load(buffer, where="x.pt")["w"]
    meta = tensors.load(buffer, map_location="meta", where="x.pt")["w"]

    assert (fake.shape, meta.shape) == ((3,), (3,))
    assert (type(fake).__name__, meta.device.type) == ("FakeTensor", "meta")


def manifest(**fields: object) -> Manifest:
    return Manifest(
        **{
            **{"write_id": "a", "format": "bundle", "generation": 1, "step": 1},
            **{"created": "2026-01-01T00:00:00+00:00", "writer": "w"},
            **fields,
        }
    )


@pytest.mark.parametrize(
    "shape", [(10**400,), (2**62, 2**62), (1,) * 65], ids=["a long number", "product", "rank"]
)
def test_a_manifest_with_sizes_that_cannot_be_computed_with_is_damage(shape):
    infos = {"w": TensorInfo("float32", shape, 4)}
    entry = FileEntry("model.pt", Digest(0, "0", 1, ()), infos)
    written = manifest(files={"model.pt": entry}).to_json()

    with pytest.raises(CorruptionError, match="more than there can be|a shape that none can have"):
        Manifest.from_json(written, "manifest.json")


def test_a_manifest_with_an_infinite_measure_is_damage():
    written = manifest().to_json()
    fields = json.loads(written)
    del fields["sha256"]
    lied = json.dumps(fields).replace('"metrics": {}', '"metrics": {"loss": 1e999}')

    with pytest.raises(CorruptionError, match="1e999 is larger than any number"):
        Manifest.from_json(lied, "manifest.json")


def test_an_error_fits_on_a_screen_whatever_it_quotes():
    fields = json.loads(manifest().to_json())
    del fields["sha256"]

    with pytest.raises(UnsafeError) as name:
        Manifest.from_json(json.dumps({**fields, "write_id": "x/" * 10**6}), "manifest.json")
    with pytest.raises(CorruptionError) as value:
        Manifest.from_json(json.dumps({**fields, "writer": ["x" * 10**6]}), "manifest.json")

    assert len(str(name.value)) <= 4000
    assert str(name.value).endswith("which is not a plain file name; not followed")
    assert len(str(value.value)) == 4000
    assert str(value.value).endswith("restore the checkpoint from a good copy")


def test_a_record_that_no_tensor_of_the_result_needs_is_checked_all_the_same():
    file = io.BytesIO()
    torch.save({"a": torch.ones(4)}, file)
    members = members_of(file.getvalue())
    emptied = [
        replace(one, data=pickle.dumps({}, 2)) if one.name.endswith(b"data.pkl") else one
        for one in members
    ]
    whole, ones = put_together(emptied), struct.pack("<4f", 1, 1, 1, 1)
    damaged = whole.replace(ones, bytes(16))

    assert damaged != whole
    assert tensors.load(io.BytesIO(whole), where="x.pt") == {}
    with pytest.raises(CorruptionError, match="data/0"):
        tensors.load(io.BytesIO(damaged), where="x.pt")
