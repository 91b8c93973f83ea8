"""The real Trainer saves, stops and goes on through the store, on every kind of storage."""

from __future__ import annotations

import contextlib
from pathlib import Path

import lightning.pytorch as pl
import pytest
import tiny_training as tiny
import torch
from ckptstore_lightning import StoreCheckpointIO, load_from_checkpoint
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.plugins.io import AsyncCheckpointIO

import ckptstore


def plugins() -> list[object]:
    return [
        pytest.param(lambda: StoreCheckpointIO(), id="sync"),
        pytest.param(lambda: StoreCheckpointIO(asynchronous=True), id="async"),
    ]


def test_lightnings_own_wrapper_for_the_background_takes_it(tmp_path, whole, names):
    for epochs, path in ((2, None), (4, str(tmp_path / "last.ckpt"))):
        plugin = AsyncCheckpointIO(StoreCheckpointIO())
        keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_last=True)
        runner = tiny.trainer(plugin, keep, epochs=epochs)
        tiny.fit(runner, tiny.module(), ckpt_path=path)

    assert tiny.alike(tiny.state_of(runner), whole)
    assert names(str(tmp_path)) == ["epoch=3.ckpt", "last.ckpt"]


@pytest.mark.parametrize("plugin", plugins())
def test_a_run_that_stops_and_goes_on_ends_as_one_that_does_not(folder, whole, plugin):
    first = tiny.trainer(plugin(), ModelCheckpoint(folder, filename="{epoch}"), epochs=2)
    tiny.fit(first, tiny.module())

    second = tiny.trainer(plugin(), ModelCheckpoint(folder, filename="{epoch}"), epochs=4)
    tiny.fit(second, tiny.module(), ckpt_path=f"{folder}/epoch=1.ckpt")

    assert tiny.alike(tiny.state_of(second), whole)


@pytest.mark.parametrize("plugin", plugins())
def test_exactly_the_top_k_and_the_last_remain(folder, names, plugin):
    keep = ModelCheckpoint(
        folder, filename="{epoch}", monitor="val_loss", save_top_k=2, save_last=True
    )
    module = tiny.module(scores=(0.5, 0.1, 0.9, 0.3, 0.7))

    tiny.fit(tiny.trainer(plugin(), keep, epochs=5), module)

    assert names(folder) == ["epoch=1.ckpt", "epoch=3.ckpt", "last.ckpt"]
    assert keep.best_model_path == f"{folder}/epoch=1.ckpt"
    steps = {name: ckptstore.open(f"{folder}/{name}").step for name in names(folder)}
    # Lightning saves the last one when it saves one of the best.
    assert steps == {"epoch=1.ckpt": 8, "epoch=3.ckpt": 16, "last.ckpt": 16}
    assert ckptstore.open(keep.best_model_path).metrics == {"val_loss": pytest.approx(0.1)}


def test_last_is_overwritten_every_few_steps(folder, names):
    keep = ModelCheckpoint(folder, save_top_k=1, save_last=True, every_n_train_steps=3)

    tiny.fit(tiny.trainer(StoreCheckpointIO(), keep, epochs=2), tiny.module())

    assert names(folder) == ["epoch=1-step=6.ckpt", "last.ckpt"]
    last = ckptstore.open(f"{folder}/last.ckpt")
    assert (last.step, last.generation) == (6, 2)


def test_names_that_are_taken_get_a_version(folder, names):
    for _ in range(2):
        keep = ModelCheckpoint(folder, filename="model", save_last=True)
        tiny.fit(tiny.trainer(StoreCheckpointIO(), keep, epochs=1), tiny.module())

    assert names(folder) == ["last-v1.ckpt", "last.ckpt", "model-v1.ckpt", "model.ckpt"]


def test_a_name_is_free_again_once_its_checkpoint_is_removed(folder, names):
    keep = ModelCheckpoint(folder, filename="{epoch}-{val_loss:.1f}", monitor="val_loss")
    tiny.fit(tiny.trainer(StoreCheckpointIO(), keep, epochs=2), tiny.module(scores=(0.5, 0.1)))
    assert names(folder) == ["epoch=1-val_loss=0.1.ckpt"]

    again = ModelCheckpoint(folder, filename="{epoch}-{val_loss:.1f}", monitor="val_loss")
    tiny.fit(tiny.trainer(StoreCheckpointIO(), again, epochs=1), tiny.module(scores=(0.5,)))

    assert names(folder) == ["epoch=0-val_loss=0.5.ckpt", "epoch=1-val_loss=0.1.ckpt"]


def test_validate_and_test_read_through_the_store(folder):
    keep = ModelCheckpoint(folder, filename="a")
    tiny.fit(tiny.trainer(StoreCheckpointIO(), keep, epochs=1), tiny.module())
    trained = ckptstore.open(f"{folder}/a.ckpt").load_model()

    module = tiny.module(lr=0.5)
    runner = tiny.trainer(StoreCheckpointIO())
    runner.validate(module, tiny.batches(1), ckpt_path=f"{folder}/a.ckpt", verbose=False)

    assert tiny.alike({**module.state_dict()}, {**trained})


def test_a_module_is_made_from_a_checkpoint(folder):
    keep = ModelCheckpoint(folder, filename="a")
    tiny.fit(tiny.trainer(StoreCheckpointIO(), keep, epochs=1), tiny.module(width=5))

    module = load_from_checkpoint(tiny.Tiny, f"{folder}/a.ckpt", lr=0.5)

    assert (module.hparams["width"], module.hparams["lr"]) == (5, 0.5)
    assert module.hparams["betas"] == (0.9, 0.99)
    assert tiny.alike({**module.state_dict()}, {**ckptstore.open(f"{folder}/a.ckpt").load_model()})


def test_an_inference_copy_is_read_too(folder, tmp_path):
    keep = ModelCheckpoint(folder, filename="a")
    tiny.fit(tiny.trainer(StoreCheckpointIO(), keep, epochs=1), tiny.module(width=5))
    ckptstore.sync(f"{folder}/a.ckpt", tmp_path / "share", optimizer=False)

    module = load_from_checkpoint(tiny.Tiny, tmp_path / "share")

    assert module.hparams["width"] == 5
    runner = tiny.trainer(StoreCheckpointIO())
    runner.validate(
        tiny.module(width=5), tiny.batches(1), ckpt_path=str(tmp_path / "share"), verbose=False
    )


@pytest.mark.parametrize("more", [{"save_weights_only": True}, {}])
def test_weights_alone_are_a_checkpoint_as_well(tmp_path, more):
    keep = ModelCheckpoint(tmp_path, filename="a", **more)
    tiny.fit(tiny.trainer(StoreCheckpointIO(), keep, epochs=1), tiny.module())

    checkpoint = ckptstore.open(tmp_path / "a.ckpt")

    assert checkpoint.has_optimizer is not bool(more)
    assert load_from_checkpoint(tiny.Tiny, tmp_path / "a.ckpt").hparams["lr"] == 0.05


def test_callbacks_with_weights_of_their_own_go_on_as_they_were(folder):
    def run(epochs, path=None):
        average = WeightAveraging(avg_fn=lambda old, new, _: 0.9 * old + 0.1 * new)
        stop = EarlyStopping("val_loss", patience=9)
        keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
        runner = tiny.trainer(StoreCheckpointIO(), average, stop, keep, epochs=epochs)
        tiny.fit(runner, tiny.module(), ckpt_path=path)
        return {**tiny.state_of(runner), "waited": stop.wait_count}

    without_a_stop = run(3)
    checkpoint = ckptstore.open(f"{folder}/epoch=0.ckpt")
    assert {"averaging_state", "current_model_state"} <= {*checkpoint.states()}

    assert tiny.alike(run(3, f"{folder}/epoch=0.ckpt"), without_a_stop)


class Pair(tiny.Tiny):
    """Two optimizers, stepped by hand, and schedulers of schedulers."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.other = torch.nn.Linear(2, 1)

    def training_step(self, batch, _):
        x, y = batch
        for optimizer, part in zip(self.optimizers(), (self.layers, self.other), strict=True):
            optimizer.zero_grad()
            self.manual_backward(torch.nn.functional.mse_loss(part(x), y))
            optimizer.step()
        for scheduler in self.lr_schedulers():
            scheduler.step()

    def configure_optimizers(self):
        schedulers = torch.optim.lr_scheduler
        one = torch.optim.Adam(self.layers.parameters(), lr=0.01)
        two = torch.optim.SGD(self.other.parameters(), lr=0.01, momentum=0.9)
        parts = [schedulers.LinearLR(two), schedulers.CosineAnnealingLR(two, 5)]
        return [one, two], [
            schedulers.OneCycleLR(one, 0.1, total_steps=30),
            schedulers.SequentialLR(two, parts, [3]),
        ]


class Counting(pl.LightningDataModule):
    """Has hyper-parameters that JSON does not hold, and a state of its own."""

    def __init__(self, root=Path("data")):
        super().__init__()
        self.save_hyperparameters()
        self.seen = None

    def train_dataloader(self):
        return tiny.batches()

    def val_dataloader(self):
        return tiny.batches(1)

    def state_dict(self):
        return {"seen": self.trainer.global_step}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_several_optimizers_and_a_datamodule_go_on_as_they_were(tmp_path):
    def run(path=None):
        torch.manual_seed(7)
        keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        runner = tiny.trainer(StoreCheckpointIO(), keep, epochs=3)
        data = Counting()
        runner.fit(Pair(), data, ckpt_path=path)
        return tiny.state_of(runner), data.seen

    without_a_stop, _ = run()
    resumed, seen = run(tmp_path / "epoch=0.ckpt")

    assert tiny.alike(resumed, without_a_stop)
    assert seen == 2 * tiny.STEPS
    assert load_from_checkpoint(Counting, tmp_path / "epoch=0.ckpt").hparams["root"] == Path("data")


def test_last_may_be_a_link_and_become_a_checkpoint_again(tmp_path, names):
    link = ModelCheckpoint(tmp_path, filename="{epoch}", save_last="link")
    tiny.fit(tiny.trainer(StoreCheckpointIO(), link, epochs=2), tiny.module())
    assert (tmp_path / "last.ckpt").is_symlink()
    assert ckptstore.open(tmp_path / "last.ckpt").step == 8

    copy = ModelCheckpoint(tmp_path, filename="{epoch}", save_last=True)
    runner = tiny.trainer(StoreCheckpointIO(), copy, epochs=3)
    tiny.fit(runner, tiny.module(), ckpt_path=str(tmp_path / "last.ckpt"))

    assert not (tmp_path / "last.ckpt").is_symlink()
    assert ckptstore.open(tmp_path / "last.ckpt").step == 12
    assert names(str(tmp_path)) == ["epoch=2.ckpt", "last.ckpt"]


def test_a_run_of_lightnings_own_files_goes_on_through_the_store(tmp_path, whole, names, caplog):
    old = ModelCheckpoint(tmp_path / "old", filename="{epoch}", save_last=True)
    tiny.fit(tiny.trainer(None, old, epochs=2), tiny.module())
    files = {path: path.read_bytes() for path in (tmp_path / "old").iterdir()}

    keep = ModelCheckpoint(tmp_path / "new", filename="{epoch}", save_last=True)
    runner = tiny.trainer(StoreCheckpointIO(), keep, epochs=4)
    with pytest.warns(UserWarning, match="The dirpath has changed"):
        tiny.fit(runner, tiny.module(), ckpt_path=str(tmp_path / "old" / "last.ckpt"))

    assert tiny.alike(tiny.state_of(runner), whole)
    assert names(str(tmp_path / "new")) == ["epoch=3.ckpt", "last.ckpt"]
    assert {path: path.read_bytes() for path in (tmp_path / "old").iterdir()} == files


def test_files_of_lightnings_own_are_never_overwritten_or_removed(folder, names, caplog):
    keep = {"filename": "{epoch}"}
    tiny.fit(tiny.trainer(None, ModelCheckpoint(folder, **keep), epochs=1), tiny.module())

    runner = tiny.trainer(StoreCheckpointIO(), ModelCheckpoint(folder, **keep), epochs=2)
    tiny.fit(runner, tiny.module(), ckpt_path=f"{folder}/epoch=0.ckpt")

    # Lightning itself spares the file that a run on a local disk was resumed from.
    assert names(folder) == ["epoch=0.ckpt", "epoch=1.ckpt"]
    runner.strategy.remove_checkpoint(f"{folder}/epoch=0.ckpt")
    assert "epoch=0.ckpt stays: ckptstore did not write this file" in caplog.text
    with pytest.raises(
        ckptstore.ConflictError, match="is a single file .* and it stays; save into"
    ):
        runner.save_checkpoint(f"{folder}/epoch=0.ckpt")
    assert names(folder) == ["epoch=0.ckpt", "epoch=1.ckpt"]


class Interrupting(Callback):
    def on_train_batch_end(self, trainer, *_args):
        if trainer.global_step == 6:
            raise RuntimeError("the power is gone")


def test_a_checkpoint_of_an_exception_is_whole(folder):
    keep = ModelCheckpoint(folder, filename="{step}", save_on_exception=True)
    runner = tiny.trainer(StoreCheckpointIO(), Interrupting(), keep, epochs=2)

    with pytest.raises(RuntimeError, match="the power is gone"):
        tiny.fit(runner, tiny.module())

    assert ckptstore.open(f"{folder}/step=6.ckpt").step == 6


def test_the_plugin_goes_into_processes_that_are_spawned(tmp_path):
    import copy
    import pickle

    plugin = StoreCheckpointIO(asynchronous=True, storage_options={"key": "k"})
    plugin.save_checkpoint({"state_dict": {}}, tmp_path / "a.ckpt")

    for other in (pickle.loads(pickle.dumps(plugin)), copy.deepcopy(plugin)):
        with contextlib.closing(Torn(other)):
            other.save_checkpoint({"state_dict": {}}, tmp_path / "b.ckpt")
    plugin.teardown()
    assert ckptstore.open(tmp_path / "b.ckpt").load_model() == {}


class Torn:
    """Tears a plugin down at the end of a block."""

    def __init__(self, plugin):
        self.close = plugin.teardown
