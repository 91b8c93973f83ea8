"""What belongs to other writers goes through loading, training and saving; nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from gpt.checkpoint import CheckpointManager
from gpt.data import GPTDataLoader
from gpt.model import GPT

WHERE = Path("checkpoints/dante")
SCHEDULER = {"last_epoch": 3, "base_lrs": [0.5], "buffer": torch.arange(4)}
SETTINGS = {f"setting {number}": ["ä", number, None] for number in range(200)}

Resume = Callable[[int], GPT]


@pytest.fixture
def resume(text: str, make_config: Any) -> Resume:
    """Give a function that trains ``dante`` up to a step, as ``gpt train`` does."""

    def resume(steps: int) -> GPT:
        manager = CheckpointManager("dante")
        model, optimizer, step = manager.initialize_for_training(make_config(), "char", text)
        loader = GPTDataLoader(model.config, model)
        loader.prepare_data(text)
        model.fit(loader, optimizer, steps, eval_iters=1, start_step=step,
                  checkpoint_dir=manager.checkpoint_dir)  # fmt: skip
        return model

    return resume


def _save_with(states: dict[str, Any], **fields: Any) -> None:
    """Save what is there again as another writer would, with states and fields of its own."""
    there = ckptstore.open(WHERE)
    ours = {name: there.load_state(name) for name in there.states()}
    ckptstore.save(
        WHERE,
        model=there.load_model(),
        config=there.config,
        tokenizer=there.tokenizer_state,
        optimizer=there.load_optimizer(),
        step=there.step,
        state={**ours, **states},
        training_state=fields,
    )


def _edit(**fields: Any) -> None:
    path = WHERE / "training_state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _everything() -> dict[str, Any]:
    """Return fields and states, whichever of both they are; no random states, no file names."""
    there = ckptstore.open(WHERE)
    states = {name: there.load_state(name) for name in there.states() if name != "rng"}
    fields = {
        name: value
        for name, value in (there.training_state or {}).items()
        if name != "step" and not name.endswith("_file")
    }
    assert not states.keys() & fields.keys()
    return {**fields, **states}


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return sorted(map(str, one.items())) == sorted(map(str, other.items()))


def test_states_of_other_writers_go_through_a_resumed_run(resume: Resume) -> None:
    resume(2)
    _save_with({"scheduler": SCHEDULER, "ema": [torch.ones(2)]}, note="mine")

    resume(3)
    resume(4)

    assert ckptstore.open(WHERE).step == 4
    assert _same(_everything(), {"note": "mine", "scheduler": SCHEDULER, "ema": [torch.ones(2)]})


def test_carried_states_leave_a_resumed_run_exact(resume: Resume) -> None:
    torch.manual_seed(1)
    resume(2)
    whole = resume(4).state_dict()
    ckptstore.Store(WHERE).remove()
    torch.manual_seed(1)
    resume(2)
    _save_with({"scheduler": SCHEDULER})

    parts = resume(4).state_dict()

    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_field_without_room_becomes_a_state_of_its_name(resume: Resume) -> None:
    resume(2)
    _edit(training_config=SETTINGS, model_dtype_at_save="torch.float32")

    with pytest.warns(UserWarning, match="has no room for 'training_config', saved as a state"):
        resume(3)
    resume(4)

    there = ckptstore.open(WHERE)
    assert there.load_state("training_config") == SETTINGS
    assert there.training_state is not None
    assert there.training_state["model_dtype_at_save"] == "torch.float32"


@pytest.mark.parametrize("value", [SETTINGS, list(SETTINGS), "much " * 300])
def test_every_way_to_save_keeps_a_field_without_room(resume: Resume, value: Any) -> None:
    resume(2)
    _edit(training_config=value)
    model, _, step, optimizer = GPT.load(WHERE)

    with pytest.warns(UserWarning, match="'training_config'"):
        model.save_checkpoint_bundle("checkpoints/other", step, optimizer)
    with pytest.warns(UserWarning, match="'training_config'"):
        model.save(WHERE)

    for where in ("checkpoints/other", WHERE):
        there = ckptstore.open(where)
        assert there.load_state("training_config") == value
        assert set(there.states()) == {"rng", "training_config"}


def test_a_name_that_is_taken_replaces_nothing(resume: Resume) -> None:
    resume(2)
    _save_with({"training_config": SCHEDULER}, Training_Config="small", final=1)
    _edit(training_config=SETTINGS, final=SETTINGS, rng=SETTINGS)

    with pytest.warns(UserWarning, match="has no room for"):
        resume(3)

    expected = {"Training_Config": "small", "training_config": SCHEDULER, "rng_": SETTINGS,
                "training_config_": SETTINGS, "final_": SETTINGS}  # fmt: skip
    found = _everything()
    assert _same(found, expected)
    assert ckptstore.open(WHERE).load_state("rng").keys() == {"torch", "cuda", "data", "trail"}


def test_very_many_small_fields_are_kept_together(resume: Resume) -> None:
    resume(2)
    fields = {f"f{number}": number for number in range(300)}
    _edit(**fields)

    with pytest.warns(UserWarning, match="saved as a state of its own"):
        resume(3)
    resume(4)

    assert _everything() == {"training_state": fields}


def test_further_keys_of_an_old_file_go_through_a_resumed_run(
    legacy_file: Path, legacy: dict[str, Any], resume: Resume
) -> None:
    torch.save({**legacy, "scheduler_state_dict": SCHEDULER, "scaler": torch.ones(3), "note": "x",
                "rng": torch.arange(9), "settings": SETTINGS}, legacy_file)  # fmt: skip

    resume(21)
    resume(22)

    assert ckptstore.open(WHERE).format == "bundle"
    assert _same(
        _everything(),
        {"note": "x", "scheduler": SCHEDULER, "scaler": torch.ones(3), "settings": SETTINGS,
         "rng_": torch.arange(9)},
    )  # fmt: skip


def test_a_conversion_by_hand_keeps_states_and_random_states(resume: Resume) -> None:
    resume(2)
    _save_with({"scheduler": SCHEDULER})
    before = ckptstore.open(WHERE)

    model, _, step, optimizer = GPT.load(WHERE)
    model.save_checkpoint_bundle("checkpoints/other", step, optimizer)
    model.save_checkpoint_bundle("checkpoints/later", 9, optimizer)

    other = ckptstore.open("checkpoints/other")
    assert _same(other.load_state("rng"), before.load_state("rng"))
    assert _same(other.load_state("scheduler"), SCHEDULER)
    assert ckptstore.open("checkpoints/later").states() == ("scheduler",)


def test_a_state_that_is_absent_is_a_warning(resume: Resume) -> None:
    resume(2)
    _save_with({"scheduler": SCHEDULER})
    Path("checkpoints/copy").mkdir()
    for path in WHERE.iterdir():
        if path.is_file() and path.name not in ("scheduler.pt", "manifest.json"):
            Path("checkpoints/copy", path.name).write_bytes(path.read_bytes())

    with pytest.warns(UserWarning, match="going on without the state 'scheduler'"):
        model = GPT.load("checkpoints/copy")[0]

    assert model.states == {}


def test_fields_that_name_the_files_of_the_bundle_are_no_states(resume: Resume) -> None:
    resume(2)
    _edit(model_file="model.pt", config_file="config.json")

    model = GPT.load(WHERE)[0]
    resume(3)

    assert model.states == {}
    there = ckptstore.open(WHERE)
    assert there.training_state is not None
    assert there.training_state["config_file"] == "config.json"


def test_another_model_takes_no_states_along(resume: Resume, text: str, make_config: Any) -> None:
    resume(2)
    _save_with({"scheduler": SCHEDULER})

    model, _, _ = CheckpointManager("new").initialize_for_training(
        make_config(), "char", text, init_from_model="dante"
    )

    assert model.states == {}
