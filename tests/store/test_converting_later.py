"""A conversion reads each tensor when it writes it: what is seen on the way, and what is left."""

from __future__ import annotations

import json

import pytest
import torch

import ckptstore
from ckptstore import plugins
from ckptstore.formats.bundle import BundleFormat
from ckptstore.formats.legacy import LegacyFormat
from ckptstore.later import Later

WEIGHT = torch.rand(700, 1000)


@pytest.fixture
def dante(tmp_path):
    """A bundle with a tie, a view, an optimizer and a state."""
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": WEIGHT * 2}}
    ckptstore.save(
        tmp_path / "dante",
        model={"w": WEIGHT, "tied": WEIGHT, "row": torch.rand(900, 3)[5], "n": torch.tensor(7)},
        config={"n_layer": 1},
        optimizer={"state": moments, "param_groups": [{"lr": 0.1, "params": [0]}]},
        state={"rng": {"torch": torch.get_rng_state()}},
        step=500,
    )
    return tmp_path / "dante"


def written(monkeypatch, cls):
    """Return what a format was given to write, from now on."""
    given, real = [], cls.write

    def write(self, contents, files):
        given.append(contents)
        real(self, contents, files)

    monkeypatch.setattr(cls, "write", write)
    return given


def leaves(value):
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    return [value] if isinstance(value, (torch.Tensor, Later)) else []


def bytes_in(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.pt")}


@pytest.mark.parametrize("formats", [("legacy", "bundle"), ("bundle", "legacy")])
def test_it_gives_what_loading_all_gives(dante, tmp_path, monkeypatch, formats):
    one = tmp_path / "one.pt"
    ckptstore.convert(dante, one, "legacy")
    source, target = (one, "bundle") if formats[0] == "legacy" else (dante, "legacy")
    results = []

    for takes in (True, False):
        place = tmp_path / f"result-{takes}"
        name = place / "new.pt" if target == "legacy" else place
        monkeypatch.setattr(type(plugins.format_named(target)), "takes_later", takes)
        ckptstore.convert(source, name, target)
        results.append(bytes_in(place))

    assert results[0] == results[1] != {}


def test_what_was_tied_stays_tied(dante, tmp_path):
    ckptstore.convert(dante, tmp_path / "one.pt", "legacy")
    ckptstore.convert(tmp_path / "one.pt", tmp_path / "again")

    loaded = ckptstore.open(tmp_path / "again").load_model()

    assert loaded["w"].data_ptr() == loaded["tied"].data_ptr()
    assert (tmp_path / "again" / "model.pt").stat().st_size < 1.1 * WEIGHT.nbytes


def test_a_format_that_takes_loaded_tensors_alone_gets_them(dante, tmp_path, monkeypatch):
    monkeypatch.setattr(LegacyFormat, "takes_later", False)
    given = written(monkeypatch, LegacyFormat)

    ckptstore.convert(dante, tmp_path / "one.pt", "legacy")

    (first, *_) = given
    found = leaves({"m": first.model, "o": first.optimizer, "s": first.states})
    assert len(found) == 7
    assert all(isinstance(leaf, torch.Tensor) for leaf in found)


def test_a_format_that_takes_them_gets_none_loaded(dante, tmp_path, monkeypatch):
    given = written(monkeypatch, LegacyFormat)

    ckptstore.convert(dante, tmp_path / "one.pt", "legacy")

    (first, *_) = given
    found = leaves({"m": first.model, "o": first.optimizer, "s": first.states})
    assert len(found) == 7
    assert all(isinstance(leaf, Later) for leaf in found)


def test_damage_in_the_middle_is_told_and_nothing_is_written(dante, tmp_path):
    (file,) = (dante / ".ckptstore").rglob("*model*.pt")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)

    with pytest.raises(ckptstore.CorruptionError, match=r"model.pt in .* is damaged: chunk"):
        ckptstore.convert(dante, tmp_path / "one.pt", "legacy")

    assert not (tmp_path / "one.pt").exists()


def test_damage_that_comes_while_it_is_written_commits_nothing(dante, tmp_path, monkeypatch):
    ckptstore.convert(dante, tmp_path / "one.pt", "legacy")
    data = bytearray((tmp_path / "one.pt").read_bytes())
    data[data.index(WEIGHT.numpy().tobytes()[:64]) + 2_000_000] ^= 1
    real, times = BundleFormat.write, []

    def write(self, contents, files):
        times.append(1)
        if len(times) == 2:  # All was read once by then, and found sound.
            (tmp_path / "one.pt").write_bytes(data)
        real(self, contents, files)

    monkeypatch.setattr(BundleFormat, "write", write)

    with pytest.raises(ckptstore.CorruptionError, match="one.pt .* has the CRC-32"):
        ckptstore.convert(tmp_path / "one.pt", tmp_path / "new")

    assert len(times) == 2
    with pytest.raises(ckptstore.NotFoundError):
        ckptstore.open(tmp_path / "new")


def test_a_source_that_is_replaced_meanwhile_is_told(dante, tmp_path, monkeypatch):
    real, times = LegacyFormat.write, []

    def write(self, contents, files):
        times.append(1)
        if len(times) == 2:
            ckptstore.save(dante, model={"w": WEIGHT + 1}, step=600)
        real(self, contents, files)

    monkeypatch.setattr(LegacyFormat, "write", write)

    with pytest.raises(ckptstore.SupersededError, match="was replaced or removed since it was"):
        ckptstore.convert(dante, tmp_path / "one.pt", "legacy")

    assert not (tmp_path / "one.pt").exists()


def test_hand_edits_go_along(dante, tmp_path):
    (dante / "config.json").write_text(json.dumps({"n_layer": 1, "mine": True}))

    ckptstore.convert(dante, tmp_path / "one.pt", "legacy")

    assert ckptstore.open(tmp_path / "one.pt").config == {"n_layer": 1, "mine": True}


def test_a_dry_run_writes_nothing(dante, tmp_path):
    done = ckptstore.convert(dante, tmp_path / "one.pt", "legacy", dry_run=True)

    assert done.copied == ("one.pt",)
    assert not (tmp_path / "one.pt").exists()


def test_progress_counts_the_bytes_that_were_written(dante, tmp_path):
    events = []

    done = ckptstore.convert(dante, tmp_path / "one.pt", "legacy", progress=events.append)

    counts = [event.done for event in events if event.action == "convert"]
    assert counts == sorted(counts)
    assert events[-1].done == events[-1].total == done.copied_bytes
    assert len(counts) > 3


def test_every_tensor_of_the_result_is_proved(dante, tmp_path):
    done = ckptstore.convert(dante, tmp_path / "one.pt", "legacy")

    assert {part: len(proofs) for part, proofs in done.proofs.items()} == {
        "model": 4,
        "optimizer": 2,
        "rng": 1,
    }
    assert all(p.before == p.after for p in done.proofs["optimizer"])


def test_a_bucket_is_a_source_and_a_destination(dante, tmp_path, moto_server):
    url, options = moto_server.url("dante"), moto_server.storage_options
    ckptstore.convert(dante, url + "/one.pt", "legacy", destination_options=options)

    ckptstore.convert(url + "/one.pt", url + "/again", storage_options=options)

    again = ckptstore.open(url + "/again", storage_options=options)
    assert torch.equal(again.load_model()["tied"], WEIGHT)
    assert again.load_optimizer()["state"][0]["step"] == 3
