"""What a stranger may have written into a sharded state: refused, and nothing runs (G5)."""

from __future__ import annotations

import json
import os

import pytest
import torch

import ckptstore
from ckptstore.distributed import StoreReader, load_sharded
from ckptstore.errors import CkptstoreError, CorruptionError, UnsafeError, UnsupportedError

FILE = "model-00000-of-00002.pt"


@pytest.fixture
def folder(tmp_path, ranks):
    """A plain folder of a sharded state, without a manifest, which anybody may have changed."""
    ranks.Ranks(ranks.state(1), 2).save(tmp_path / "real", step=1, small_view=False)
    place = tmp_path / "plain"
    place.mkdir()
    for file in (tmp_path / "real").iterdir():
        if file.is_file() and file.name != "manifest.json":
            (place / file.name).write_bytes(file.read_bytes())
    assert ranks.holds(ckptstore.open(place), ranks.state(1))
    return place


def rewritten(folder, change):
    text = json.loads((folder / "shards.json").read_text())
    change(text)
    (folder / "shards.json").write_text(json.dumps(text))


def tensor(text):
    return text["parts"]["model"]["tensors"]["w"]


CHANGES = {
    "a gap": (lambda t: tensor(t)["chunks"].pop("0:4, 0:6"), "24 of its 48 elements"),
    "an overlap": (
        lambda t: tensor(t)["chunks"].update({"3:4, 0:6": {"file": FILE, "key": "b"}}),
        "overlap",
    ),
    "out of it": (
        lambda t: tensor(t).update(chunks={"0:9, 0:6": FILE}),
        "reaches out of it",
    ),
    "an empty one": (
        lambda t: tensor(t)["chunks"].update({"4:4, 0:6": {"file": FILE, "key": "e"}}),
        "is empty",
    ),
    "backwards": (lambda t: tensor(t).update(chunks={"8:0, 0:6": FILE}), "no box of a tensor"),
    "no box": (lambda t: tensor(t).update(chunks={"0-8": FILE}), "no box of a tensor"),
    "another rank": (lambda t: tensor(t).update(chunks={"0:8": FILE}), "has another rank"),
    "one record twice": (
        lambda t: tensor(t).update(chunks={"0:4, 0:6": FILE, "4:8, 0:6": FILE}),
        "is used twice",
    ),
    "a negative shape": (lambda t: tensor(t).update(shape=[-8, 6]), "is no count"),
    "a shape without end": (lambda t: tensor(t).update(shape=[2**62, 2**62]), "no tensor can have"),
    "a dtype": (lambda t: tensor(t).update(dtype="object"), "which is unknown"),
    "the same as itself": (lambda t: tensor(t).update(same_as="w"), "cannot be the same"),
    "the same as nothing": (lambda t: tensor(t).update(same_as="x"), "KeyError"),
    "one name twice": (
        lambda t: t["parts"]["model"]["tensors"].update(
            {"v": {**tensor(t), "path": ["w"], "same_as": "b", "shape": [3]}}
        ),
        "stands there twice",
    ),
    "a path without end": (lambda t: tensor(t).update(path=["a"] * 100), "deeper than any"),
    "no version": (lambda t: t.update(shards="1"), "its version is"),
    "no parts": (lambda t: t.pop("parts"), "KeyError"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_the_text_says_is_checked(folder, case):
    change, said = CHANGES[case]
    rewritten(folder, change)

    with pytest.raises(CorruptionError, match=said):
        ckptstore.open(folder)
    with pytest.raises(CorruptionError, match=said):
        StoreReader(folder)


def test_a_newer_version_is_refused(folder):
    rewritten(folder, lambda text: text.update(shards=2))

    with pytest.raises(UnsupportedError, match="install a newer ckptstore"):
        ckptstore.open(folder)


@pytest.mark.parametrize("name", ["../secret.pt", "/etc/passwd.pt", "a/b.pt", "..\\x.pt"])
def test_names_lead_nowhere(folder, name):
    rewritten(folder, lambda text: tensor(text).update(chunks={"0:8, 0:6": name}))

    with pytest.raises(UnsafeError, match="not a plain file name"):
        ckptstore.open(folder)


def test_a_file_that_is_no_pt_is_not_read(folder):
    rewritten(folder, lambda text: tensor(text).update(chunks={"0:8, 0:6": "config.json"}))

    with pytest.raises(CorruptionError, match="is no file of tensors"):
        ckptstore.open(folder)


def test_a_link_that_leads_out_is_not_followed(folder, tmp_path):
    outside = tmp_path / "outside.pt"
    (folder / FILE).rename(outside)
    os.symlink(outside, folder / FILE)

    with pytest.raises(UnsafeError, match="a link that leads out"):
        ckptstore.open(folder)


def test_a_tensor_that_no_file_could_fill_is_not_allocated(folder):
    def change(text):
        tensor(text).update(shape=[2**40], chunks={f"0:{2**40}": FILE})

    rewritten(folder, change)
    checkpoint = ckptstore.open(folder)

    with pytest.raises(CorruptionError, match="bytes of tensors in model-00000"):
        checkpoint.load_model()


def test_many_claims_on_one_file_are_refused(folder):
    def change(text):
        entry = {**tensor(text), "shape": [200, 6]}
        for number in range(1000):
            text["parts"]["model"]["tensors"][f"w{number}"] = {
                **entry,
                "chunks": {"0:200, 0:6": {"file": FILE, "key": f"k{number}"}},
            }
        (folder / FILE).write_bytes(b"\0" * 4800)

    rewritten(folder, change)

    with pytest.raises(CorruptionError, match="bytes of tensors in model-00000"):
        ckptstore.open(folder).load_model()


def test_another_tensor_in_its_place_is_refused(folder):
    held = torch.load(folder / FILE, weights_only=True)
    torch.save({**held, "w": held["w"].double()}, folder / FILE)

    with pytest.raises(CorruptionError, match="'w' in it is float64 of"):
        ckptstore.open(folder).load_model()


def test_a_value_that_would_run_code_is_refused(folder, tmp_path):
    class Unsafe:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    for file in folder.glob("optimizer-*.pt"):
        torch.save({"param_groups.0.lr": Unsafe(), "state.w.exp_avg": torch.zeros(4, 6)}, file)

    with pytest.raises(UnsafeError):
        ckptstore.open(folder).load_optimizer()
    model = torch.nn.Linear(6, 8)
    with pytest.raises(CkptstoreError):
        load_sharded(folder, model=model, optimizer=torch.optim.SGD(model.parameters()))
    assert not (tmp_path / "executed").exists()


def test_damage_in_a_folder_without_a_manifest_is_found_by_the_crcs(folder, ranks):
    data = bytearray((folder / FILE).read_bytes())
    at = data.find(ranks.state(1)["model.w"][:4].numpy().tobytes())
    data[at] ^= 1
    (folder / FILE).write_bytes(data)
    checkpoint = ckptstore.open(folder)

    with pytest.raises(CorruptionError, match="CRC-32"):
        checkpoint.load_model()
    with pytest.raises(CorruptionError, match="CRC-32"):
        list(checkpoint.reader.model_later()["w"].pieces())
    assert not checkpoint.verify().sound


def test_contradicting_paths_are_damage(folder):
    def change(text):
        values = text["parts"]["optimizer"]["values"]
        values["param_groups.0.lr"]["path"] = ["param_groups", 0, "lr", "x"]
        values["param_groups.0.params"]["path"] = ["param_groups", 0, "lr"]

    rewritten(folder, change)

    with pytest.raises(CorruptionError, match="is one value and several at once"):
        ckptstore.open(folder).load_optimizer()
