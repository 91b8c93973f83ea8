"""``inspect``: what it shows, for people and for programs, without reading weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

Run = Callable[..., Result]
Save = Callable[..., None]


def sections(text: str) -> dict[str, list[str]]:
    """Return the lines of each section by its title; the first has the location as its title."""
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    return {title: lines for title, *lines in blocks}


def facts(lines: list[str]) -> dict[str, str]:
    """Return the second column of aligned lines by the first."""
    return {line.split()[0]: line.split(None, 1)[1] for line in lines}


def test_json_has_the_documented_fields(run: Run, dante: Path) -> None:
    result = run("inspect", dante, "--json")

    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert list(document) == [
        "schema",
        "location",
        "format",
        "generation",
        "step",
        "created",
        "writer",
        "proved",
        "edited",
        "passed_over",
        "config",
        "tokenizer",
        "fingerprint",
        "training_state",
        "metrics",
        "history",
        "has_optimizer",
        "optimizer",
        "states",
        "tensors",
        "ties",
        "unseen",
        "refers_to",
        "files",
    ]
    assert document["schema"] == 1
    assert document["format"] == "bundle"
    assert (document["generation"], document["step"]) == (1, 100)
    assert document["config"]["n_embd"] == 8
    assert document["tokenizer"] == {"token_kind": "char", "chars": ["\n", "a", "b"]}
    assert document["training_state"]["optimizer_file"] == "optimizer.pt"
    assert document["metrics"] == {"val_loss": 1.25}
    assert document["proved"] is True
    assert document["has_optimizer"] is True
    assert document["edited"] == []
    assert document["tensors"] == {
        "count": 2,
        "parameters": 6,
        "nbytes": 24,
        "dtypes": {"float32": 2},
    }


def test_json_lists_each_file_as_the_disk_has_it(run: Run, dante: Path) -> None:
    from hashlib import sha256

    files = json.loads(run("inspect", dante, "--json").stdout)["files"]

    assert set(files) == {
        "config.json",
        "model.pt",
        "optimizer.pt",
        "tokenizer.json",
        "training_state.json",
    }
    for name, file in files.items():
        data = (dante / name).read_bytes()
        assert file == {
            "size": len(data),
            "sha256": sha256(data).hexdigest(),
            "present": True,
        }


def test_json_lists_each_tensor_when_asked(run: Run, dante: Path) -> None:
    document = json.loads(run("inspect", dante, "--json", "--tensors").stdout)

    assert document["tensor_index"]["embedding.weight"] == {
        "dtype": "float32",
        "shape": [2, 2],
        "nbytes": 16,
    }
    assert list(document["tensor_index"]) == ["embedding.weight", "head.bias"]


def test_a_person_sees_every_section(run: Run, dante: Path) -> None:
    result = run("inspect", dante)

    shown = sections(result.stdout)
    assert list(shown) == [
        str(dante),
        "config",
        "tokenizer",
        "training state",
        "metrics",
        "optimizer",
        "modules",
        "tensors",
        "files",
    ]
    about = facts(shown[str(dante)])
    assert about["format"] == "bundle, generation 1"
    assert about["step"] == "100"
    assert about["proof"] == "manifest"
    assert about["optimizer"] == "present"
    assert about["saved"].endswith(" UTC by ckptstore 0.1.0")
    assert "n_embd" in result.stdout
    assert facts(shown["tokenizer"])["kind"] == "char"
    assert shown["tensors"] == ["  2 tensors, 6 parameters, 24 B, float32"]
    assert [line.split()[0] for line in shown["files"]] == [
        "config.json",
        "tokenizer.json",
        "training_state.json",
        "model.pt",
        "optimizer.pt",
    ]


def test_a_person_sees_each_tensor_when_asked(run: Run, dante: Path) -> None:
    shown = sections(run("inspect", dante, "--tensors").stdout)

    assert shown["tensors"] == [
        "  embedding.weight  float32  2 x 2  16 B",
        "  head.bias         float32  2       8 B",
        "  2 tensors, 6 parameters, 24 B, float32",
    ]


@pytest.mark.parametrize("columns", [80, 120])
def test_the_output_fits_the_screen(run: Run, tmp_path: Path, save: Save, columns: int) -> None:
    import torch

    name = "a/very/long/name/" * 8 + "weight"
    config = {f"field_{i}": i for i in range(30)} | {"long": list(range(200))}
    save(tmp_path / "x", config=config, model={name: torch.zeros(1), "b": torch.zeros(2, 3)})

    result = run("inspect", tmp_path / "x", "--tensors", env={"COLUMNS": str(columns)})

    wide = [line for line in result.stdout.splitlines() if len(line) > columns]
    assert wide == [f"  {name}"], "only a name that fits nowhere is wider, and it is not cut"
    assert any(len(line) > columns * 0.6 for line in result.stdout.splitlines() if "field" in line)


def test_a_hand_edit_is_shown_and_marked(run: Run, dante: Path) -> None:
    config = json.loads((dante / "config.json").read_text())
    (dante / "config.json").write_text(json.dumps({**config, "dropout": 0.5}))

    document = json.loads(run("inspect", dante, "--json").stdout)
    text = run("inspect", dante).stdout

    assert document["edited"] == ["config.json"]
    assert document["config"]["dropout"] == 0.5
    assert "config.json, by hand" in text


def test_a_folder_without_a_manifest_is_called_not_verified(
    run: Run, dante: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("model.pt", "config.json", "tokenizer.json"):
        shutil.copy(dante / name, plain / name)

    document = json.loads(run("inspect", plain, "--json").stdout)
    about = facts(sections(run("inspect", plain).stdout)[str(plain)])

    assert (document["proved"], document["generation"]) == (False, None)
    assert document["files"]["model.pt"]["sha256"] is None
    assert about["proof"].startswith("not verified")
    assert about["optimizer"] == "none"
    assert about["step"] == "not recorded"


def test_a_copy_without_the_optimizer_says_that_it_is_absent(
    run: Run, dante: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("model.pt", "config.json", "tokenizer.json", "manifest.json"):
        shutil.copy(dante / name, copy / name)

    document = json.loads(run("inspect", copy, "--json").stdout)
    text = run("inspect", copy).stdout

    assert document["files"]["optimizer.pt"]["present"] is False
    assert any(line.endswith("absent") for line in text.splitlines() if "optimizer.pt" in line)


def test_an_unknown_tokenizer_kind_does_not_stop_inspect(
    run: Run, tmp_path: Path, save: Save
) -> None:
    save(tmp_path / "x", tokenizer={"token_kind": "runes", "alphabet": "futhark"})

    result = run("inspect", tmp_path / "x")

    assert result.exit_code == 0
    assert facts(sections(result.stdout)["tokenizer"])["kind"] == "runes"
    assert json.loads(run("inspect", tmp_path / "x", "--json").stdout)["tokenizer"] == {
        "token_kind": "runes",
        "alphabet": "futhark",
    }


def test_a_checkpoint_with_weights_alone_says_none_of_the_rest(
    run: Run, tmp_path: Path, save: Save
) -> None:
    save(tmp_path / "x", config=None, tokenizer=None, optimizer=None, metrics=None, step=None)

    shown = sections(run("inspect", tmp_path / "x").stdout)

    assert shown["config"] == ["  none"]
    assert shown["tokenizer"] == ["  none"]
    assert "metrics" not in shown


def test_a_legacy_file_is_inspected_by_folder_and_by_name(run: Run, legacy: Path) -> None:
    by_folder = json.loads(run("inspect", legacy, "--json").stdout)
    by_name = json.loads(run("inspect", legacy / "latest.pt", "--json").stdout)

    for document in (by_folder, by_name):
        assert document["format"] == "legacy"
        assert document["step"] == 7
        assert document["tokenizer"]["token_kind"] == "gpt2"
        assert document["has_optimizer"] is True


def test_a_step_of_a_history_is_inspected(run: Run, tmp_path: Path, save_history: Save) -> None:
    save_history(tmp_path / "h", 500, 1000)

    assert json.loads(run("inspect", tmp_path / "h", "--json").stdout)["step"] == 1000
    assert json.loads(run("inspect", tmp_path / "h", "--json", "--step", 500).stdout)["step"] == 500
    missing = run("inspect", tmp_path / "h", "--step", 700)
    assert missing.exit_code == 3
    assert "committed steps: 500, 1000" in missing.stderr


def test_text_of_a_checkpoint_cannot_command_the_terminal(
    run: Run, tmp_path: Path, save: Save
) -> None:
    import torch

    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    save(tmp_path / "x", config={evil: evil}, model={evil: torch.zeros(1)})

    text = run("inspect", tmp_path / "x", "--tensors", color=True).stdout

    plain = click.unstyle(text)
    assert not [char for char in plain if not char.isprintable() and char != "\n"]
    assert "\\x1b]0;owned\\x07" in plain


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {}])
def test_no_color_is_respected(run: Run, dante: Path, variable: dict[str, str]) -> None:
    text = run("inspect", dante, color=not variable or None, env=variable).stdout

    assert ("\x1b[" in text) is not bool(variable)


def test_letters_that_stdout_cannot_show_are_escaped(
    shell: Callable[..., Any], tmp_path: Path, save: Save
) -> None:
    save(tmp_path / "x", config={"Erdős": "ő"})

    western = {"PYTHONIOENCODING": "latin-1"}
    person = shell("inspect", "x", env=western)
    program = shell("inspect", "x", "--json", env=western)

    assert person.returncode == program.returncode == 0
    assert "Erd\\u0151s" in person.stdout
    assert json.loads(program.stdout)["config"] == {"Erdős": "ő"}


def test_python_m_runs_the_same_command(shell: Callable[..., Any], dante: Path) -> None:
    done = shell("inspect", "checkpoints/dante", "--json")

    assert done.returncode == 0
    assert json.loads(done.stdout)["step"] == 100


def test_a_person_sees_what_the_optimizer_is(run: Run, dante: Path) -> None:
    shown = facts(sections(run("inspect", dante).stdout)["optimizer"])

    assert shown["kind"] == "AdamW"
    assert shown["covers"] == "2 parameters in 1 group"
    assert shown["keeps"] == "step (2), exp_avg (2), exp_avg_sq (2)"
    assert shown["settings"].startswith("lr 0.001, betas [0.9, 0.999], eps 1e-08, weight_decay")
    document = json.loads(run("inspect", dante, "--json").stdout)
    assert document["optimizer"]["kind"] == "AdamW"
    assert document["optimizer"]["slots"] == {"step": 2, "exp_avg": 2, "exp_avg_sq": 2}


@pytest.mark.parametrize(
    "kind", ["Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop"]
)
def test_torchs_optimizers_are_told_apart(run: Run, tmp_path: Path, save: Save, kind: str) -> None:
    import torch

    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = getattr(torch.optim, kind)([weight])
    weight.grad = torch.ones(2)
    optimizer.step()
    save(tmp_path / "x", model={"w": weight}, optimizer=optimizer)

    found = json.loads(run("inspect", tmp_path / "x", "--json").stdout)["optimizer"]["kind"]

    assert found == kind


def test_tied_tensors_and_what_pickles_refer_to_are_shown(
    run: Run, tmp_path: Path, save: Save
) -> None:
    import torch

    weight = torch.ones(2, 2)
    save(tmp_path / "x", model={"emb": weight, "head": weight})

    shown = run("inspect", tmp_path / "x").stdout

    assert "  tied: emb = head\n" in shown
    assert "refer to 3 names, all of tensors and plain data" in shown


def test_only_the_tensors_whose_names_match_are_listed(run: Run, dante: Path) -> None:
    shown = sections(run("inspect", dante, "--tensors", "*.bias").stdout)["tensors"]

    assert [line.split()[0] for line in shown] == ["head.bias", "2"]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("*.gain", "; there are 'embedding.weight', 'head.bias' (see "),
        ("*.wieght", "; did you mean '*.weight'? (see "),
        ("embeding.*", "; did you mean 'embedding.*'? (see "),
        ("haed.bias", "; did you mean 'head.bias'? (see "),
        ("Head.*", "; did you mean 'head.*'? (see "),
    ],
)
def test_a_pattern_that_matches_nothing_names_a_near_one_or_what_there_is(
    run: Run, dante: Path, pattern: str, said: str
) -> None:
    refused = run("inspect", dante, "--tensors", pattern)

    assert refused.exit_code == 2
    assert f"no tensor is called like '{pattern}'{said}" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_of_many_tensors_some_are_named(run: Run, tmp_path: Path, save: Save) -> None:
    import torch

    save(tmp_path / "x", model={f"block.{n}": torch.ones(1) for n in range(9)})
    save(tmp_path / "y", model={})

    some = run("inspect", tmp_path / "x", "--tensors", "optimizer").stderr
    none = run("inspect", tmp_path / "y", "--tensors", "optimizer").stderr

    assert "; there are 'block.0', 'block.1', 'block.2' and 6 more (see " in some
    assert "; there is none at all (see " in none


def test_the_location_may_stand_behind_the_option(run: Run, dante: Path) -> None:
    assert run("inspect", "--tensors", dante).stdout == run("inspect", dante, "--tensors").stdout
    assert run("inspect").exit_code == 2


def test_statistics_are_told_of_the_tensors_asked_for(run: Run, tmp_path: Path, save: Save) -> None:
    import torch

    model = {"a": torch.tensor([0.0, 1.0, 3.0, float("nan")]), "b": torch.ones(3)}
    save(tmp_path / "x", model=model)

    lines = sections(run("inspect", tmp_path / "x", "--stats").stdout)["tensors"]
    document = json.loads(run("inspect", tmp_path / "x", "--stats", "--json").stdout)

    assert lines[0].split() == ["min", "max", "mean", "std", "zeros", "NaN", "inf"]
    assert lines[1].split()[:5] == ["a", "float32", "4", "16", "B"]
    assert lines[1].split()[5:] == ["0", "3", "1.333", "1.247", "1", "1", "0"]
    assert document["statistics"]["b"] == {
        "minimum": 1.0,
        "maximum": 1.0,
        "mean": 1.0,
        "std": 0.0,
        "nan": 0,
        "inf": 0,
        "zeros": 0,
    }
    assert "tensor_index" not in document


def test_the_age_of_a_checkpoint_is_told(run: Run, dante: Path) -> None:
    from ckptstore.wording import ago

    assert ago("2020-01-01T00:00:00+00:00").endswith(" days ago")
    assert facts(sections(run("inspect", dante).stdout)[str(dante)])["saved"].endswith("0.1.0")


def test_an_error_names_all_that_a_pickle_refers_to(run: Run, tmp_path: Path) -> None:
    import os
    import runpy

    import torch

    class Runs:
        def __init__(self, function: object) -> None:
            self.function = function

        def __reduce__(self) -> tuple[object, tuple[str]]:
            return self.function, ("true",)

    folder = tmp_path / "x"
    folder.mkdir()
    hostile = {"a": Runs(os.system), "b": Runs(runpy.run_path), "c": Runs(os.system)}
    torch.save(hostile, folder / "model.pt")

    result = run("inspect", folder)

    assert result.exit_code == 5
    assert "(posix.system at 'a', runpy.run_path)" in result.stderr


# -- the history --------------------------------------------------------------------------


def test_a_step_says_which_steps_there_are_and_which_is_shown(
    run: Run, tmp_path: Path, save_history: Save
) -> None:
    save_history(tmp_path / "h", 500, 1000, 1500)

    newest = run("inspect", tmp_path / "h").stdout
    older = run("inspect", tmp_path / "h", "--step", 500).stdout

    for text, shown in ((newest, "the newest"), (older, "step 500")):
        section = text.split("\nhistory\n")[1].split("\n\n")[0].splitlines()
        assert section[0] == "  steps   3 steps, 500 to 1500"
        assert section[1].startswith("  newest  step 1500, saved 2")
        assert section[2] == f"  shown   {shown}"


def test_the_history_as_json(run: Run, tmp_path: Path, save_history: Save) -> None:
    save_history(tmp_path / "h", 500, 1000)

    newest = json.loads(run("inspect", tmp_path / "h", "--json").stdout)
    older = json.loads(run("inspect", tmp_path / "h", "--json", "--step", 500).stdout)

    assert newest["history"] == {
        "steps": {"count": 2, "first": 500, "last": 1000},
        "newest": {"step": 1000, "created": newest["created"]},
        "shown": 1000,
    }
    assert older["history"]["shown"] == 500
    assert older["history"]["newest"]["step"] == 1000
    status = (tmp_path / "h" / "step-00001000" / "manifest.json").stat()
    committed = datetime.fromtimestamp(max(status.st_mtime, status.st_ctime), timezone.utc)
    dated = committed.isoformat(timespec="seconds")
    assert older["history"]["newest"]["created"] == dated


def test_a_generation_says_how_many_there_were_before_and_what_is_known_of_them(
    run: Run, dante: Path, save: Save
) -> None:
    first = json.loads(run("inspect", dante, "--json").stdout)["history"]
    save(dante, step=200)
    save(dante, step=300, config={"dropout": 0.0})

    third = json.loads(run("inspect", dante, "--json").stdout)["history"]

    assert first == {"generation": 1, "forerunners": 0, "remembered": {}}
    assert (third["generation"], third["forerunners"]) == (3, 2)
    assert third["remembered"]["config.json"] == 1
    assert third["remembered"]["training_state.json"] == 2
    assert "3, after 2 forerunners" in run("inspect", dante).stdout


def test_what_was_never_committed_has_no_history(run: Run, legacy: Path) -> None:
    assert json.loads(run("inspect", legacy, "--json").stdout)["history"] is None
    assert "\nhistory\n" not in run("inspect", legacy).stdout
