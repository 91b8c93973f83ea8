"""One state that several ranks write: committed by one manifest, read by everybody."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

import ckptstore
from ckptstore import Keep, Store
from ckptstore.cli import main
from ckptstore.distributed import StoreWriter
from ckptstore.errors import ConflictError, StorageError, UnsafeError, UnsupportedError
from ckptstore.testing import Nothing, inject


@pytest.mark.parametrize("along", [0, 1])
def test_a_state_of_four_ranks_opens_everywhere_as_one(location, ranks, along):
    url, options = location
    flat = ranks.state(3)

    saved = ranks.Ranks(flat, 4, along).save(
        url, step=3, config={"n": 6}, metrics={"loss": 1.5}, storage_options=options
    )
    opened = ckptstore.open(url, storage_options=options)

    for checkpoint in (saved, opened):
        assert ranks.holds(checkpoint, flat)
        assert (checkpoint.format, checkpoint.step, checkpoint.config) == ("sharded", 3, {"n": 6})
        assert checkpoint.metrics == {"loss": 1.5}
    assert opened.tensors()["w"].shape == (8, 6)
    assert opened.verify().sound
    assert torch.equal(opened.load_model(["w"])["w"], flat["model.w"])


def test_each_ranks_file_is_read_by_plain_torch(tmp_path, ranks):
    flat = ranks.state(1)

    ranks.Ranks(flat, 2).save(tmp_path / "run", step=1, keep=Keep(last=2))

    (file,) = (tmp_path / "run" / "step-00000001").glob("model-00001-of-00002.*.pt")
    held = torch.load(file, weights_only=True)
    assert torch.equal(held["w"], flat["model.w"][4:])
    (file,) = (tmp_path / "run" / "step-00000001").glob("optimizer-00000-of-00002.*.pt")
    held = torch.load(file, weights_only=True)
    assert torch.equal(held["state.w.exp_avg"], flat["optimizer.state.w.exp_avg"][:4])
    assert held["param_groups.0.lr"] == flat["optimizer.param_groups.0.lr"]


def test_the_text_says_where_every_chunk_is(tmp_path, ranks):
    ranks.Ranks(ranks.state(1), 2).save(tmp_path / "one")

    text = (tmp_path / "one" / "shards.json").read_text()

    model = json.loads(text)["parts"]["model"]
    assert model["at"] == ["model"]
    assert model["tensors"]["w"] == {
        "dtype": "float32",
        "shape": [8, 6],
        "chunks": {"0:4, 0:6": "model-00000-of-00002.pt", "4:8, 0:6": "model-00001-of-00002.pt"},
    }
    assert model["tensors"]["scalar"]["chunks"] == {"": "model-00000-of-00002.pt"}
    assert model["tensors"]["none"]["chunks"] == {}


def test_generations_follow_each_other_and_the_older_one_goes(tmp_path, ranks):
    place = tmp_path / "one"
    ckptstore.save(place, model={"w": torch.zeros(2)}, step=1)

    for seed in (2, 3):
        ranks.Ranks(ranks.state(seed), 3).save(place, step=seed)

    assert ranks.holds(ckptstore.open(place), ranks.state(3))
    assert [folder.name for folder in (place / ".ckptstore").iterdir()] == ["00000003"]
    assert not (place / "model.pt").exists()  # A small view has no weights.
    assert ckptstore.open(place).verify().sound


def test_a_history_keeps_what_its_policy_says_and_never_loses_the_best(tmp_path, ranks):
    store = Store(tmp_path / "run", keep=Keep(last=1, best="loss"))

    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5)):
        ranks.Ranks(ranks.state(step), 2).save(store, step=step, metrics={"loss": loss})

    assert store.steps() == (2, 4)
    assert ranks.holds(store.open(step=2), ranks.state(2))


def test_a_step_saved_again_with_the_same_content_changes_nothing(tmp_path, ranks):
    run = tmp_path / "run"
    ranks.Ranks(ranks.state(1), 2).save(run, step=1, keep=Keep(last=2))
    before = sorted(path.name for path in (run / "step-00000001").iterdir())

    again = ranks.Ranks(ranks.state(1), 2).save(run, step=1, keep=Keep(last=2))

    assert ranks.holds(again, ranks.state(1))
    assert sorted(path.name for path in (run / "step-00000001").iterdir()) == before


def test_a_step_with_other_content_is_replaced_only_where_that_is_asked_for(tmp_path, ranks):
    run = tmp_path / "run"
    ranks.Ranks(ranks.state(1), 2).save(run, step=1, keep=Keep(last=2))
    before = sorted(path.name for path in (run / "step-00000001").iterdir())

    with pytest.raises(ConflictError, match="step 1 is in .* already, with other content"):
        ranks.Ranks(ranks.state(2), 2).save(run, step=1, keep=Keep(last=2))
    assert sorted(path.name for path in (run / "step-00000001").iterdir()) == before

    ranks.Ranks(ranks.state(2), 2).save(run, step=1, keep=Keep(last=2), overwrite=True)
    assert ranks.holds(ckptstore.open(run), ranks.state(2))
    assert len([*(run / "step-00000001").iterdir()]) == len(before)


def test_a_history_wants_a_step(tmp_path, ranks):
    with pytest.raises(UnsupportedError, match="its checkpoints are known by their steps"):
        ranks.Ranks(ranks.state(1), 2).save(tmp_path / "run", keep=Keep(last=2))


def test_what_could_only_be_read_by_running_code_is_refused(tmp_path, ranks):
    flat = {**ranks.state(1), "loader": Path("data")}

    with pytest.raises(UnsafeError, match="the value 'loader' holds more than tensors"):
        ranks.Ranks(flat, 2).save(tmp_path / "one")
    assert [*tmp_path.rglob("*.pt")] == []


def test_a_sparse_tensor_is_refused_by_its_name(tmp_path, ranks):
    chosen = ranks.Ranks(ranks.state(1), 2)
    chosen.resolve_data = lambda item: torch.eye(4).to_sparse()

    with pytest.raises(UnsupportedError, match="is a tensor of layout torch.sparse_coo"):
        chosen.save(tmp_path / "one")


def test_ranks_that_save_without_each_other_are_refused(tmp_path):
    with pytest.raises(UnsupportedError, match="use_collectives=False lets every rank save"):
        StoreWriter(tmp_path).set_up_storage_writer(True, rank=0, use_collectives=False)


def test_plans_that_a_planner_leaves_out_are_refused(tmp_path, ranks):
    chosen = ranks.Ranks(ranks.state(1), 2)
    object.__setattr__(chosen.plans[1], "usable", False)

    with pytest.raises(UnsupportedError, match="enable_plan_caching=False"):
        chosen.save(tmp_path / "one")


def test_a_chunk_that_nobody_wrote_is_not_committed(tmp_path, ranks):
    chosen = ranks.Ranks(ranks.state(1), 2)
    writers = [StoreWriter(tmp_path / "one") for _ in range(2)]
    handed = chosen.begin(writers)
    results = [
        writer.write_data(plan, chosen).value()
        for writer, plan in zip(writers, handed, strict=True)
    ]

    with pytest.raises(UnsupportedError, match="no rank wrote 'model.scalar' at"):
        writers[0].finish(chosen.metadata(), [results[0][:1], results[1]])


def test_what_nobody_could_open_is_not_committed(tmp_path, ranks):
    flat = {**ranks.state(1), f"model.{'w' * 5000}": torch.zeros(2)}

    with pytest.raises(UnsupportedError, match="nobody could open it"):
        ranks.Ranks(flat, 2).save(tmp_path / "one")
    with pytest.raises(UnsupportedError, match="nobody could open it"):
        ckptstore.save(tmp_path / "two", model={"w" * 5000: torch.zeros(2)}, format="sharded")
    assert [*tmp_path.rglob("*.pt")] == []


def test_what_belongs_to_another_save_is_not_committed(tmp_path, ranks):
    chosen = ranks.Ranks(ranks.state(1), 2)
    both = [[StoreWriter(tmp_path / "one") for _ in range(2)] for _ in range(2)]
    handed = [chosen.begin(writers) for writers in both]
    first = both[0][0].write_data(handed[0][0], chosen).value()
    other = both[1][1].write_data(handed[1][1], chosen).value()

    with pytest.raises(UnsupportedError, match="a process wrote for generation 1, write"):
        both[0][0].finish(chosen.metadata(), [first, other])
    with pytest.raises(ckptstore.NotFoundError):
        ckptstore.open(tmp_path / "one")


def test_two_ranks_of_one_number_are_not_committed(tmp_path, ranks):
    chosen = ranks.Ranks(ranks.state(1), 2)
    writers = [StoreWriter(tmp_path / "one") for _ in range(2)]
    handed = chosen.begin(writers)
    results = [writers[0].write_data(plan, chosen).value() for plan in handed]
    results[1][0].storage_data["entries"] = results[0][0].storage_data["entries"]

    with pytest.raises(ckptstore.CorruptionError, match="two processes wrote 'model-00000-of"):
        writers[0].finish(chosen.metadata(), results)


def test_an_item_that_two_ranks_wrote_leaves_out_the_files_of_neither(tmp_path, ranks):
    chosen = ranks.Ranks(ranks.state(1), 2)
    metadata = chosen.metadata()
    chosen.plans[1].items.insert(0, chosen.plans[0].items[0])
    writers = [StoreWriter(tmp_path / "one") for _ in range(2)]
    handed = chosen.begin(writers)
    results = [
        writer.write_data(plan, chosen).value()
        for writer, plan in zip(writers, handed, strict=True)
    ]

    writers[0].finish(metadata, results)

    assert ranks.holds(ckptstore.open(tmp_path / "one"), ranks.state(1))
    assert ckptstore.open(tmp_path / "one").verify().sound


def test_a_file_that_went_meanwhile_is_not_committed(location, ranks):
    url, options = location
    chosen = ranks.Ranks(ranks.state(1), 2)
    writers = [StoreWriter(url, storage_options=options) for _ in range(2)]
    handed = chosen.begin(writers)
    results = [
        writer.write_data(plan, chosen).value()
        for writer, plan in zip(writers, handed, strict=True)
    ]
    place = Store(url, storage_options=options)._storage
    writers[1].failed(ckptstore_said_no())

    with pytest.raises(StorageError, match="was removed while this save was writing it"):
        writers[0].finish(chosen.metadata(), results)
    assert place.list(".ckptstore/00000001").files == {}
    with pytest.raises(ckptstore.NotFoundError):
        ckptstore.open(url, storage_options=options)


def ckptstore_said_no():
    from torch.distributed.checkpoint.api import CheckpointException

    return CheckpointException("write", {0: (RuntimeError("no"), None)})


def test_a_writer_may_be_sent_to_another_process(tmp_path, ranks):
    writer = pickle.loads(pickle.dumps(StoreWriter(tmp_path / "one", step=4)))

    chosen = ranks.Ranks(ranks.state(1), 1)
    results = writer.write_data(chosen.begin([writer])[0], chosen).value()
    writer.finish(chosen.metadata(), [results])

    assert ckptstore.open(tmp_path / "one").step == 4


def test_importing_it_imports_no_torch():
    import subprocess
    import sys

    code = "import ckptstore.distributed, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_line_knows_sharded_states(tmp_path, ranks, capsys):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    ranks.Ranks(ranks.state(1), 4, 1).save(one, step=5, config={"n": 1})
    ranks.Ranks(ranks.state(2), 2).save(two, step=6, config={"n": 1})

    assert run("inspect", one, "--json")["tensors"]["parameters"] == 52
    assert run("verify", one, "--json")["sound"] is True
    run("sync", one, str(tmp_path / "copy"))
    assert ranks.holds(ckptstore.open(tmp_path / "copy"), ranks.state(1))
    run("diff", one, str(tmp_path / "copy"))
    assert run("diff", one, two, "--json")["same"] is False
    assert "sharded" in json.dumps(run("ls", str(tmp_path), "--json"))


def run(*arguments, code=0):
    from click.testing import CliRunner

    result = CliRunner().invoke(main, [*arguments])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if "--json" in arguments else None


def test_a_copy_for_inference_has_the_model_alone(tmp_path, ranks):
    ranks.Ranks(ranks.state(1), 2).save(tmp_path / "one", step=1)

    ckptstore.sync(tmp_path / "one", tmp_path / "two", optimizer=False)

    copy = ckptstore.open(tmp_path / "two")
    assert torch.equal(copy.load_model()["w"], ranks.state(1)["model.w"])
    assert not copy.has_optimizer
    assert copy.verify().sound
    with pytest.raises(ckptstore.NotFoundError, match="an inference copy"):
        copy.load_optimizer()


def test_a_model_file_that_is_gone_is_damage(tmp_path, ranks):
    ranks.Ranks(ranks.state(1), 2).save(tmp_path / "one", step=1)
    checkpoint = ckptstore.open(tmp_path / "one")
    (file,) = tmp_path.rglob("model-00001-of-00002.*.pt")
    file.unlink()

    assert not checkpoint.verify().sound
    with pytest.raises(ckptstore.CorruptionError, match="model-00001-of-00002.pt is listed"):
        checkpoint.load_model()


def test_one_tensor_reads_only_the_files_that_hold_it(tmp_path, ranks):
    ranks.Ranks(ranks.state(1), 4).save(tmp_path / "one")

    with inject(Nothing()) as seen:
        ckptstore.open(tmp_path / "one").load_model(["b"])

    assert len({op.path for op in seen.operations if op.name == "open"}) == 1
