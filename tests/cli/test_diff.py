"""``ckptstore diff``: what two checkpoints do not have in common, without reading weights."""

from __future__ import annotations

import json
import math

import pytest
import torch

import ckptstore
from ckptstore.storage.local import LocalStorage

from .conftest import CONFIG, optimizer_state, weights


@pytest.fixture
def pair(tmp_path, save):
    """Two checkpoints, the second of which differs in some of everything."""
    one, two = tmp_path / "one", tmp_path / "two"
    save(one)
    model = weights(100)
    model["head.bias"] = torch.zeros(3)
    model["new"] = torch.ones(2)
    model["embedding.weight"] = weights(100)["embedding.weight"] * 2
    changed = optimizer_state(100)
    changed["param_groups"][0]["lr"] = 0.5
    config = {**CONFIG, "n_layer": 2, "rope": True}
    del config["dropout"]
    save(two, step=200, model=model, config=config, optimizer=changed, metrics={"val_loss": 1.0})
    return one, two


def sections(text):
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    return {title: lines for title, *lines in blocks}


def test_a_person_sees_what_was_and_what_is(run, pair):
    result = run("diff", *pair)

    shown = sections(result.stdout)
    assert result.exit_code == 0
    assert shown["checkpoint"] == ["  ~  step  100 -> 200"]
    assert shown["config"] == ["  ~  n_layer  1 -> 2", "  -  dropout  0.2", "  +  rope     true"]
    assert shown["metrics"] == ["  ~  val_loss  1.25 -> 1.0"]
    assert shown["optimizer"] == ["  ~  group 0.lr  0.001 -> 0.5"]
    assert "tokenizer" not in shown
    assert "training state" not in shown
    assert [line.split()[:2] for line in shown["tensors of the model"]] == [
        ["~", "embedding.weight"],
        ["~", "head.bias"],
        ["+", "new"],
        ["0", "tensors"],
    ]
    assert shown["tensors of the optimizer"] == ["  6 tensors the same"]


def test_a_part_that_one_side_alone_has_is_one_line(run, tmp_path, pair):
    one, _ = pair
    ckptstore.sync(one, tmp_path / "copy", optimizer=False)

    there, back = run("diff", one, tmp_path / "copy"), run("diff", tmp_path / "copy", one)
    listed = run("diff", one, tmp_path / "copy", "--tensors")

    name = "tensors of the optimizer"
    assert sections(there.stdout)[name] == [f"  -  only in {one}  6 tensors"]
    assert sections(back.stdout)[name] == [f"  +  only in {one}  6 tensors"]
    assert len(sections(listed.stdout)[name]) == 7


@pytest.mark.parametrize("columns", [60, 200])
def test_on_a_narrow_screen_a_distance_takes_the_place_of_the_form(run, pair, columns):
    result = run("diff", "--stats", *pair, env={"COLUMNS": str(columns)})

    lines = sections(result.stdout)["tensors of the model"]
    assert lines[0].startswith("  ~  embedding.weight")
    assert "relative L2 " in lines[0]
    assert ("float32" in lines[0]) == (columns == 200)


def test_equal_checkpoints_differ_in_nothing(run, tmp_path, pair):
    one, _ = pair
    ckptstore.sync(one, tmp_path / "copy")

    result = run("diff", one, tmp_path / "copy", "--exit-code")

    assert result.exit_code == 0
    assert result.stdout.endswith("nothing differs\n")


def test_a_pattern_of_no_tensor_that_changed_names_a_near_one(run, pair):
    shown = sections(run("diff", *pair, "--tensors", "*.wieght").stdout)["tensors of the model"]

    assert shown[0] == (
        "  no tensor that changed is called like '*.wieght'; did you mean '*.weight'?"
    )


def test_it_exits_with_1_where_it_is_asked_to(run, pair):
    assert run("diff", *pair, "--exit-code").exit_code == 1


def test_no_byte_of_weights_is_read(run, pair, monkeypatch):
    def refused(self, name):
        raise AssertionError(f"{name} was opened")

    monkeypatch.setattr(LocalStorage, "open", refused)

    assert run("diff", *pair).exit_code == 0


def test_json_has_the_documented_fields(run, pair):
    document = json.loads(run("diff", *pair, "--json").stdout)

    assert (document["schema"], document["same"]) == (1, False)
    assert document["before"] == str(pair[0])
    assert document["changes"]["config"] == [
        {"path": "n_layer", "before": 1, "after": 2},
        {"path": "dropout", "before": 0.2},
        {"path": "rope", "after": True},
    ]
    kinds = {change["name"]: change["kind"] for change in document["tensors"]["model"]["changed"]}
    assert kinds == {"embedding.weight": "changed", "head.bias": "reshaped", "new": "added"}
    assert document["tensors"]["optimizer"] == {"alike": 6, "unsure": [], "changed": []}


def test_statistics_tell_how_far_changed_tensors_are_apart(run, pair):
    document = json.loads(run("diff", *pair, "--stats", "--json").stdout)

    found = {c["name"]: c["distance"] for c in document["tensors"]["model"]["changed"]}
    assert found["embedding.weight"]["relative_l2"] == pytest.approx(1.0)
    assert found["embedding.weight"]["cosine"] == pytest.approx(1.0)
    assert found["head.bias"] is None
    assert "relative L2 1, cosine 1" in run("diff", *pair, "--stats").stdout


def test_a_legacy_file_and_the_bundle_made_of_it_hold_the_same_tensors(run, legacy):
    ckptstore.convert(legacy, legacy / "new")

    shown = sections(run("diff", legacy, legacy / "new").stdout)

    assert shown["checkpoint"] == ["  ~  format  legacy -> bundle"]
    assert all(
        line.endswith("the same")
        for title, lines in shown.items()
        if title.startswith("tensors of")
        for line in lines
    )


def test_many_changes_are_cut_off_and_listed_when_asked(run, tmp_path, save):
    save(tmp_path / "a", model={f"w{i}": torch.zeros(1) for i in range(50)})
    save(tmp_path / "b", model={f"w{i}": torch.ones(1) for i in range(50)})

    short = sections(run("diff", tmp_path / "a", tmp_path / "b").stdout)["tensors of the model"]
    whole = sections(run("diff", tmp_path / "a", tmp_path / "b", "--tensors", "w1*").stdout)

    assert len(short) == 22
    assert short[20] == "  … and 30 more; --tensors lists all"
    assert [line.split()[1] for line in whole["tensors of the model"][:-1]] == [
        name for name in (f"w{i}" for i in range(50)) if name.startswith("w1")
    ]


def test_an_absent_checkpoint_is_an_error_like_everywhere(run, pair, tmp_path):
    result = run("diff", pair[0], tmp_path / "nobody")

    assert result.exit_code == 3
    assert result.stderr.startswith("error: ")


def test_a_difference_on_s3_reads_manifests_alone(moto_server, tmp_path, save):
    save(tmp_path / "x", model={"w": torch.zeros(3_000_000)})
    url, options = moto_server.url("dante"), moto_server.storage_options
    ckptstore.sync(tmp_path / "x", url, storage_options=options)

    found = ckptstore.diff(tmp_path / "x", url, storage_options=options)

    assert found.same
    assert found.alike["model"] == 1


def test_the_angle_of_nothing_is_none(tmp_path, save):
    save(tmp_path / "a", model={"w": torch.zeros(3)})
    save(tmp_path / "b", model={"w": torch.tensor([1.0, math.inf, 2.0])})

    (change,) = ckptstore.diff(tmp_path / "a", tmp_path / "b", statistics=True).tensors["model"]

    assert change.distance == ckptstore.differences.Distance(None, None)
