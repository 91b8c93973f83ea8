"""Single files: what Lightning itself wrote, and what ckptstore's own older form holds."""

from __future__ import annotations

import pickle
import subprocess
import sys

import lightning.pytorch as pl
import numpy
import pytest
import tiny_training as tiny
import torch
from ckptstore_lightning import StoreCheckpointIO, load_from_checkpoint
from lightning.pytorch.callbacks import ModelCheckpoint

import ckptstore
from ckptstore import CorruptionError, NotFoundError, UnsafeError


@pytest.fixture
def io() -> StoreCheckpointIO:
    return StoreCheckpointIO()


@pytest.fixture
def old(folder: str) -> str:
    """Give the path of a file that Lightning wrote."""
    keep = ModelCheckpoint(folder, filename="old")
    tiny.fit(tiny.trainer(None, keep, epochs=1), tiny.module(width=5))
    return f"{folder}/old.ckpt"


def test_a_file_of_lightnings_is_what_lightning_loads(io, old):
    from lightning.pytorch.plugins.io import TorchCheckpointIO

    theirs = TorchCheckpointIO().load_checkpoint(old)

    ours = io.load_checkpoint(old)

    assert list(ours) == list(theirs)
    assert ours["hyper_parameters"] == theirs["hyper_parameters"]
    assert all(map(torch.equal, ours["state_dict"].values(), theirs["state_dict"].values()))


def test_a_module_is_made_from_a_file_of_lightnings(old):
    assert load_from_checkpoint(tiny.Tiny, old).hparams["width"] == 5


class Data(pl.LightningDataModule):
    def __init__(self, size: int = 1) -> None:
        super().__init__()
        self.save_hyperparameters()


def test_a_datamodule_is_made_from_a_checkpoint(io, tmp_path):
    io.save_checkpoint(
        {
            "pytorch-lightning_version": pl.__version__,
            "state_dict": {},
            "global_step": 0,
            "epoch": 0,
            "datamodule_hyper_parameters": {"size": 7},
        },
        tmp_path / "a.ckpt",
    )

    assert load_from_checkpoint(Data, tmp_path / "a.ckpt").hparams["size"] == 7


@pytest.mark.parametrize("listed", [True, False])
def test_code_that_a_checkpoint_names_to_make_the_module_with_is_refused(
    io, tmp_path, monkeypatch, listed
):
    name = "os.system" if listed else "lightning.pytorch.cli.instantiate_module"
    if not listed:  # Releases of Lightning that import whatever they are told.
        monkeypatch.delattr("lightning.pytorch.core.saving._ALLOWED_INSTANTIATORS")
    given = {"state_dict": {}, "hyper_parameters": {"_instantiator": name}}
    versions = {"pytorch-lightning_version": pl.__version__, "global_step": 0, "epoch": 0}
    io.save_checkpoint({**given, **versions}, tmp_path / "a.ckpt")

    with pytest.raises(UnsafeError, match=f"names '{name}' to make the module with"):
        load_from_checkpoint(tiny.Tiny, tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("value", "named"), [(numpy.float64(1), "numpy"), (pickle.Pickler, "pickle.Pickler")]
)
def test_a_file_that_would_run_code_is_refused_and_says_what_to_do(io, tmp_path, value, named):
    torch.save({"state_dict": {}, "hyper_parameters": {"lr": value}}, tmp_path / "a.ckpt")

    with pytest.raises(UnsafeError, match=f"a.ckpt holds more than .*{named}.*; if you trust it"):
        io.load_checkpoint(tmp_path / "a.ckpt", weights_only=False)


def test_weights_only_false_changes_nothing_and_is_logged_once(io, tmp_path, caplog):
    io.save_checkpoint({"state_dict": {}}, tmp_path / "a.ckpt")
    from ckptstore_lightning import plugin

    plugin._said.clear()
    for value in (False, False, True, None):
        assert io.load_checkpoint(tmp_path / "a.ckpt", weights_only=value) == {"state_dict": {}}

    assert caplog.text.count("weights_only=False has no effect") == 1


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 cut", b"not a checkpoint at all"])
def test_a_damaged_file_is_an_error_of_ours(io, tmp_path, data):
    (tmp_path / "a.ckpt").write_bytes(data)

    with pytest.raises((CorruptionError, UnsafeError), match="a.ckpt"):
        io.load_checkpoint(tmp_path / "a.ckpt")


def test_what_is_not_there_is_not_found(io, folder):
    with pytest.raises(NotFoundError, match="no checkpoint in .*a.ckpt") as raised:
        io.load_checkpoint(f"{folder}/a.ckpt")

    assert isinstance(raised.value, FileNotFoundError)


def test_damage_in_a_checkpoint_is_found(io, tmp_path):
    io.save_checkpoint({"state_dict": {"w": torch.arange(1000.0)}}, tmp_path / "a.ckpt")
    file = tmp_path / "a.ckpt" / "model.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)

    with pytest.raises(CorruptionError, match="model.pt"):
        io.load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("named", ["", "/latest.pt"])
def test_a_checkpoint_of_ckptstores_older_form_is_read(io, tmp_path, named):
    weights = tiny.module(width=5).state_dict()
    old = {"model_state_dict": weights, "config": {"width": 5}, "tokenizer": None, "step": 7}
    torch.save({**old, "optimizer_state_dict": None}, tmp_path / "latest.pt")

    found = io.load_checkpoint(f"{tmp_path}{named}")

    assert (found["global_step"], found["hyper_parameters"]) == (7, {"width": 5})
    assert load_from_checkpoint(tiny.Tiny, f"{tmp_path}{named}").hparams["width"] == 5


def test_a_bundle_of_any_other_program_is_read(io, tmp_path):
    module = tiny.module(width=5)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    ckptstore.save(tmp_path / "a", model=module, optimizer=optimizer, config={"width": 5}, step=3)

    found = io.load_checkpoint(tmp_path / "a")

    assert found["optimizer_states"] == [optimizer.state_dict()]
    assert load_from_checkpoint(tiny.Tiny, tmp_path / "a").hparams["width"] == 5


def test_the_path_of_a_manifest_names_its_checkpoint(io, folder):
    io.save_checkpoint({"state_dict": {}}, f"{folder}/a.ckpt")

    assert io.load_checkpoint(f"{folder}/a.ckpt/manifest.json") == {"state_dict": {}}


def test_storage_options_are_enough_for_the_plugin_itself(moto_server):
    url, options = moto_server.url("a.ckpt"), moto_server.storage_options
    given = {"state_dict": {}, "global_step": 3}

    for io in (StoreCheckpointIO(storage_options=options), StoreCheckpointIO()):
        io.save_checkpoint(given, url, storage_options=options)
    io = StoreCheckpointIO(storage_options=options)

    assert io.load_checkpoint(url) == given
    io.remove_checkpoint(url)
    assert moto_server.keys(url) == {}


def test_a_small_view_has_the_weights_once(tmp_path):
    StoreCheckpointIO(small_view=True).save_checkpoint({"state_dict": {}}, tmp_path / "a.ckpt")

    assert not (tmp_path / "a.ckpt" / "model.pt").exists()
    assert ckptstore.open(tmp_path / "a.ckpt").load_model() == {}


def test_importing_it_imports_neither_lightning_nor_torch():
    code = (
        "import sys, ckptstore_lightning; "
        "print([name for name in ('torch', 'lightning', 'fsspec') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
