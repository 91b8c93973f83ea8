"""What is read, and what is refused: ranges, hostile headers, links, and no torch where none is."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from ckptstore_safetensors.header import read_header
from safetensors.torch import load_file
from safetensors_trainings import Watched, trained

import ckptstore
from ckptstore import plugins
from ckptstore.formats.base import Contents
from ckptstore.testing import MemoryFiles, MemoryNewFiles

WEIGHTS = {"wide": torch.arange(300.0), "small": torch.arange(5), "other": torch.ones(7, 3)}


def written(**parts) -> dict[str, bytes]:
    new = MemoryNewFiles()
    plugins.format_named("safetensors").write(Contents(**{"model": WEIGHTS, **parts}), new)
    return new.written().data


def raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_only_the_ranges_that_are_asked_for_are_read():
    files = Watched(written())
    reader = plugins.format_named("safetensors").read(files)
    entries = read_header(MemoryFiles(files.data).open("model.safetensors"), "x").entries
    reader.tensors()
    files.read.clear()

    found = reader.load_model(["small", "other"])

    assert found.keys() == {"small", "other"}
    assert sorted(files.read) == sorted(
        ("model.safetensors", entries[n].start, entries[n].start + entries[n].nbytes)
        for n in ("small", "other")
    )


def test_the_index_costs_the_header_and_no_byte_of_a_tensor():
    files = Watched(written())

    plugins.format_named("safetensors").read(files).tensors()

    length = int.from_bytes(files.data["model.safetensors"][:8], "little")
    assert max(end for _, _, end in files.read) == 8 + length


def test_the_order_of_a_state_dict_is_kept_and_every_tensor_is_aligned():
    state = {"b": torch.ones(3, dtype=torch.bool), "a": torch.ones(2), "c": torch.ones(1).double()}
    files = MemoryFiles(written(model=state))

    header = read_header(files.open("model.safetensors"), "x")

    assert [*header.entries] == ["b", "a", "c"]
    for name, entry in header.entries.items():
        assert entry.start % state[name].element_size() == 0


GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it has 0 bytes, and a header's length alone takes 8"),
        (b"\x02\0\0", "it has 3 bytes"),
        (
            (2**63).to_bytes(8, "little"),
            "its header would have 9223372036854775808 bytes, the most",
        ),
        ((500).to_bytes(8, "little") + b"{}", "its header would have 500 bytes, the file has 10"),
        (raw(b"[]"), "holds a JSON list, not an object"),
        (raw(b"{"), "not valid JSON"),
        (raw(b"\xff\xfe"), "not valid JSON"),
        (raw(b'{"a":1,"a":2}'), "the key 'a' stands there twice"),
        (raw({"__metadata__": [1]}), "its __metadata__ is not texts by name"),
        (raw({"__metadata__": {"a": 1}}), "its __metadata__ is not texts by name"),
        (raw({"a": 7}), "'a' has not dtype, shape and data_offsets but 7"),
        (raw({"a": {**GOOD["a"], "more": 1}}, bytes(8)), "'a' has not dtype, shape and"),
        (raw({"a": {**GOOD["a"], "shape": [2.0]}}, bytes(8)), "'a' has the shape"),
        (raw({"a": {**GOOD["a"], "shape": [True, 2]}}, bytes(8)), "'a' has the shape"),
        (raw({"a": {**GOOD["a"], "shape": [-2]}}, bytes(8)), "'a' has the shape"),
        (raw({"a": {**GOOD["a"], "shape": [1] * 65}}, bytes(8)), "'a' has the shape"),
        (raw({"a": {**GOOD["a"], "data_offsets": [8, 0]}}, bytes(8)), "'a' has the data_offsets"),
        (raw({"a": {**GOOD["a"], "data_offsets": [0]}}, bytes(8)), "'a' has the data_offsets"),
        (
            raw({"a": {**GOOD["a"], "shape": [3]}}, bytes(8)),
            "8 bytes, and its shape and dtype take",
        ),
        (raw({"a": {**GOOD["a"], "shape": [2**40] * 3}}, bytes(8)), "which there cannot be"),
        (
            raw({"a": {**GOOD["a"], "shape": [0, 2**58, 16], "data_offsets": [0, 0]}}),
            "'a' has the shape .*, which there cannot be",
        ),
        (raw(GOOD, bytes(7)), "its tensors end at byte .*, the file at"),
        (raw(GOOD, bytes(9)), "its tensors end at byte .*, the file at"),
        (raw({**GOOD, "b": GOOD["a"]}, bytes(8)), "'b' begins at byte .*, and what is before it"),
        (
            raw({"a": {**GOOD["a"], "data_offsets": [8, 16]}}, bytes(16)),
            "'a' begins at byte .*, and what is before it ends at",
        ),
    ],
)
def test_a_header_that_cannot_be_is_damage(data, message):
    files = MemoryFiles({"model.safetensors": data})

    with pytest.raises(ckptstore.CorruptionError, match=message):
        plugins.format_named("safetensors").read(files).tensors()


def test_a_dtype_of_tomorrow_is_named():
    files = MemoryFiles({"model.safetensors": raw({"a": {**GOOD["a"], "dtype": "F3"}}, bytes(8))})

    with pytest.raises(ckptstore.UnsupportedError, match="holds 'a' as 'F3', a dtype that is not"):
        plugins.format_named("safetensors").read(files).tensors()


def test_a_header_larger_than_any_reader_takes_is_not_written(monkeypatch, tmp_path):
    from ckptstore_safetensors import header

    monkeypatch.setattr(header, "MOST_HEADER", 100)

    with pytest.raises(ckptstore.UnsupportedError, match="as JSON, and safetensors has room for"):
        ckptstore.save(tmp_path / "x", model=WEIGHTS, format="safetensors")


def test_a_folder_without_its_weights_is_damaged(tmp_path):
    checkpoint = ckptstore.save(tmp_path / "run", model=WEIGHTS, format="safetensors")
    reader = plugins.format_named("safetensors").read(MemoryFiles({"config.json": b"{}"}))

    with pytest.raises(ckptstore.CorruptionError, match="has no model.safetensors, which every"):
        reader.load_model()
    assert checkpoint.tensors().keys() == WEIGHTS.keys()


def test_a_name_that_leads_outside_is_not_followed(tmp_path):
    training = trained()
    checkpoint = ckptstore.save(
        tmp_path / "run", model=training.model, optimizer=training.optimizer, format="safetensors"
    )
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in checkpoint.files():
        (plain / name).write_bytes((tmp_path / "run" / name).read_bytes())
    (plain / "optimizer.safetensors").rename(tmp_path / "outside.safetensors")
    (plain / "mine.safetensors").symlink_to(tmp_path / "outside.safetensors")

    for name, message in {
        "../outside.safetensors": "which is not a plain file name; not followed",
        "mine.safetensors": "a link that leads out of .*; not followed",
    }.items():
        (plain / "training_state.json").write_text(json.dumps({"optimizer_file": name}))
        with pytest.raises(ckptstore.UnsafeError, match=message):
            ckptstore.open(plain)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"step": "x"}, ckptstore.CorruptionError, "has the step 'x', not a whole number"),
        ({"ema_file": "ema.safetensors"}, ckptstore.NotFoundError, "no ema.safetensors in"),
        ({"optimizer_file": "o.safetensors"}, ckptstore.NotFoundError, "an inference copy"),
    ],
)
def test_what_training_state_names_and_is_not_there_is_said(fields, error, message):
    files = {**written(), "training_state.json": json.dumps(fields).encode()}

    def read() -> None:
        reader = plugins.format_named("safetensors").read(MemoryFiles(files))
        reader.load_optimizer()
        reader.load_state("ema")

    with pytest.raises(error, match=message):
        read()


def test_a_state_that_is_not_there_is_named_with_those_that_are():
    reader = plugins.format_named("safetensors").read(
        MemoryFiles(written(states={"ema": {"w": torch.ones(2)}}))
    )

    with pytest.raises(ckptstore.NotFoundError, match="no state 'emma' in memory; it has 'ema'"):
        reader.load_state("emma")


def test_looking_imports_no_torch(tmp_path):
    training = trained()
    ckptstore.save(
        tmp_path / "run", model=training.model, optimizer=training.optimizer, format="safetensors"
    )
    code = f"""
import sys
import ckptstore
checkpoint = ckptstore.open({str(tmp_path / "run")!r})
assert len(checkpoint.tensors()) == 4 and len(checkpoint.tensors("optimizer")) == 12
assert "torch" not in sys.modules and "safetensors" not in sys.modules
assert len(checkpoint.structure()["optimizer"].groups) == 1
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_are_read_straight_into_the_memory_of_a_model(tmp_path):
    checkpoint = ckptstore.save(tmp_path / "run", model=trained(0).model, format="safetensors")
    model = trained(1).model
    places = [parameter.data_ptr() for parameter in model.parameters()]
    version = model[0].weight._version

    checkpoint.restore(model=model)

    assert [parameter.data_ptr() for parameter in model.parameters()] == places
    assert model[0].weight._version > version
    for name, tensor in load_file(tmp_path / "run/model.safetensors").items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_what_cannot_be_filled_in_place_is_copied():
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(6.0), "c": torch.ones(2)}
    state["tied"] = state["a"]
    reader = plugins.format_named("safetensors").read(MemoryFiles(written(model=state)))
    shared = torch.zeros(6)
    into = {
        "a": torch.zeros(3, 2).t(),
        "b": torch.zeros(6, dtype=torch.float64),
        "c": shared[2:4],
        "tied": torch.zeros(2, 3),
    }

    assert reader.fill_model(into)

    assert all(torch.equal(into[name].float(), state[name]) for name in into)
    assert shared.tolist() == [0, 0, 1, 1, 0, 0]
    assert not reader.fill_model({"a": torch.zeros(3, 2)})
    assert not reader.fill_model({"nobody": torch.zeros(3, 2)})


def test_of_tensors_that_are_one_in_the_model_the_last_is_what_it_becomes():
    reader = plugins.format_named("safetensors").read(
        MemoryFiles(written(model={"a": torch.ones(3), "b": torch.full((3,), 2.0)}))
    )
    tied = torch.zeros(3)

    assert reader.fill_model({"a": tied, "b": tied})

    assert tied.tolist() == [2, 2, 2]


class Wide(torch.nn.Module):
    """More than one chunk of 8 MiB."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.first = torch.nn.Parameter(torch.full((2**22,), value))
        self.last = torch.nn.Parameter(torch.full((2**20,), value))


@pytest.mark.parametrize("atomic", [False, True])
def test_damage_on_the_way_into_a_model_is_said(tmp_path, atomic):
    ckptstore.save(tmp_path / "run", model=Wide(1.0), format="safetensors")
    (generation,) = (tmp_path / "run/.ckptstore").glob("*/model*.safetensors")
    with generation.open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"x")
    model = Wide(2.0)

    with pytest.raises(ckptstore.CorruptionError, match="damaged: chunk 2") as caught:
        ckptstore.open(tmp_path / "run").restore(model=model, atomic=atomic)

    assert ("the model holds a part of what was read" in str(caught.value)) is not atomic
    if atomic:
        assert {*model.first.tolist(), *model.last.tolist()} == {2.0}


def test_mapped_tensors_look_into_the_file_and_never_change_it(tmp_path):
    checkpoint = ckptstore.save(tmp_path / "run", model=WEIGHTS, format="safetensors")
    before = (tmp_path / "run/model.safetensors").read_bytes()

    mapped = checkpoint.load_model(["wide", "small"], mmap=True)

    assert torch.equal(mapped["wide"], WEIGHTS["wide"])
    mapped["wide"].zero_()
    assert (tmp_path / "run/model.safetensors").read_bytes() == before


def test_what_cannot_be_mapped_says_why(tmp_path):
    ckptstore.save("memory://unmapped", model=WEIGHTS, format="safetensors")
    with pytest.raises(ckptstore.UnsupportedError, match="cannot be mapped, for it is on no local"):
        ckptstore.open("memory://unmapped").load_model(mmap=True)

    (tmp_path / "odd.safetensors").write_bytes(raw({**GOOD, "__metadata__": {}}, bytes(8)))
    if (8 + len(json.dumps({**GOOD, "__metadata__": {}}))) % 4:
        with pytest.raises(ckptstore.UnsupportedError, match="its float32 are at byte"):
            ckptstore.open(tmp_path / "odd.safetensors").load_model(mmap=True)


@pytest.mark.parametrize(
    "where", [None, "cpu", torch.device("cpu"), {"cpu": "cpu"}, {}, lambda storage, place: storage]
)
def test_tensors_go_where_map_location_says(where):
    reader = plugins.format_named("safetensors").read(MemoryFiles(written()))

    found = reader.load_model(map_location=where)

    assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


def test_on_the_meta_device_nothing_is_read():
    files = Watched(written())
    reader = plugins.format_named("safetensors").read(files)
    reader.tensors()
    files.read.clear()

    found = reader.load_model(map_location="meta")

    assert found["wide"].is_meta
    assert files.read == []


def test_a_device_that_is_not_here_is_named():
    reader = plugins.format_named("safetensors").read(MemoryFiles(written()))

    with pytest.raises(ckptstore.UnsupportedError, match="map_location is 'xla', which is not"):
        reader.load_model(map_location="xla")


def test_a_single_file_is_weights_alone(tmp_path):
    ckptstore.save(tmp_path / "run", model=WEIGHTS, config={"n": 1}, format="safetensors")
    os.rename(tmp_path / "run/model.safetensors", tmp_path / "mine.safetensors")

    checkpoint = ckptstore.open(tmp_path / "mine.safetensors")

    assert (checkpoint.format, checkpoint.config, checkpoint.parts()) == (
        "safetensors",
        None,
        ("model",),
    )
    assert torch.equal(checkpoint.load_model()["wide"], WEIGHTS["wide"])
    assert [*checkpoint.files()] == ["mine.safetensors"]
