"""The commands: train, generate, inspect; and what they say when they cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

import ckptstore
from gpt.model import GPT

Run = Callable[..., Result]
QUICK = ["--eval_iters", 1, "--eval_interval", 5]
SIZES = ["--batch_size", 4, "--block_size", 16, "--n_embd", 16, "--n_head", 2, "--n_layer", 1]


@pytest.fixture
def train(run: Run) -> Run:
    """Give a function that trains a tiny model."""

    def train(*arguments: object) -> Result:
        return run("train", "--model_name", "dante", *QUICK, *SIZES, *arguments)

    return train


@pytest.fixture
def dante(train: Run) -> Path:
    """Give the folder of a tiny model at step 3."""
    result = train("--max_iters", 3, "--seed", 1)
    assert result.exit_code == 0, result.output
    return Path("checkpoints/dante")


def _refused(result: Result, code: int, *parts: str) -> None:
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert [line for line in lines if not line.startswith("warning: ")] == lines[-1:]
    assert lines[-1].startswith("error: ")
    for part in parts:
        assert part in lines[-1]


# -- train --------------------------------------------------------------------------------


def test_training_says_what_it_does_and_where_the_checkpoint_is(train: Run) -> None:
    result = train("--max_iters", 7)

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("starting: ")
    assert [line.split(":")[0] for line in lines[1:3]] == ["step 5/7", "step 7/7"]
    assert all(line.endswith(", saved") for line in lines[1:3])
    assert "checkpoints/dante" in lines[-1]
    assert ckptstore.open("checkpoints/dante").step == 7


def test_a_second_run_goes_on(train: Run, dante: Path) -> None:
    result = train("--max_iters", 6)

    assert "going on at step 3" in result.stdout
    assert ckptstore.open(dante).step == 6
    assert train("--max_iters", 6).stdout.splitlines()[-1].startswith("step 6 is finished")


def test_a_run_in_two_parts_equals_one(run: Run) -> None:
    for name, parts in (("whole", [8]), ("parts", [5, 8])):
        for last in parts:
            run("train", "--model_name", name, *QUICK, *SIZES, "--seed", 1, "--max_iters", last)

    one, other = (ckptstore.open(f"checkpoints/{name}").load_model() for name in ("whole", "parts"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_on_resume_what_is_given_holds_and_the_rest_is_the_checkpoints(
    run: Run, dante: Path
) -> None:
    options = ["train", "--model_name", "dante", *QUICK]
    run(*options, "--max_iters", 4, "--learning_rate", 0.5, "--dropout", 0.4)
    result = run(*options, "--max_iters", 5, "--n_layer", 9)

    checkpoint = ckptstore.open(dante)
    assert checkpoint.config is not None
    optimizer = checkpoint.load_optimizer()
    assert optimizer is not None
    assert optimizer["param_groups"][0]["lr"] == 0.5
    assert (checkpoint.config["dropout"], checkpoint.config["batch_size"]) == (0.4, 4)
    assert "n_layer stays 1, as in the checkpoint, not 9" in result.stderr


def test_a_copied_config_starts_another_model(train: Run, dante: Path, tmp_path: Path) -> None:
    config = {**json.loads((dante / "config.json").read_text()), "vocab_size": 50304, "mine": 1}
    (tmp_path / "my_config.json").write_text(json.dumps(config))
    (tmp_path / "text").write_text("abcdefgh" * 20)

    result = train("--model_name", "other", "--config_file", "my_config.json", "--n_layer", 2,
                   "--input_file", "text", "--max_iters", 1)  # fmt: skip

    assert result.exit_code == 0, result.output
    assert "vocab_size is 8 for the 'char' tokenizer, not 50304 as in my_config" in result.stderr
    written = json.loads(Path("checkpoints/other/config.json").read_text())
    assert written == {**config, "vocab_size": 8, "n_layer": 2}


def test_a_model_starts_from_another(train: Run, dante: Path) -> None:
    result = train("--model_name", "new", "--init_from_model", "dante", "--max_iters", 1)

    assert result.exit_code == 0, result.output
    assert ckptstore.open("checkpoints/new").step == 1


def test_an_inference_copy_goes_on_with_warnings(train: Run, dante: Path) -> None:
    Path("checkpoints/copy").mkdir()
    for name in ("model.pt", "config.json", "tokenizer.json"):
        shutil.copy(dante / name, Path("checkpoints/copy", name))

    result = train("--model_name", "copy", "--max_iters", 2)

    assert result.exit_code == 0, result.output
    said = result.stderr.splitlines()
    assert [line.split(":")[0] for line in said] == ["warning", "warning"]
    assert "counting from step 0" in said[0]
    assert "using a fresh optimizer" in said[1]


def test_nothing_needs_numpy(shell: Any) -> None:
    program = "import sys; sys.modules['numpy'] = None; from gpt.__main__ import main; main()"

    result = shell("-W", "ignore", "-c", program, "train", "--model_name", "dante", *QUICK, *SIZES,
                   "--max_iters", 2)  # fmt: skip

    assert result.returncode == 0, result.stderr


def test_an_optimizer_that_is_absent_asks_for_fresh_optimizer(train: Run, dante: Path) -> None:
    shutil.rmtree(dante / ".ckptstore")
    (dante / "manifest.json").unlink()
    (dante / "optimizer.pt").unlink()

    _refused(train("--max_iters", 4), 3, "optimizer.pt", "--fresh_optimizer")
    assert train("--max_iters", 4, "--fresh_optimizer").exit_code == 0


def test_on_resume_only_what_is_used_is_checked(run: Run, dante: Path) -> None:
    options = ["train", *QUICK, "--max_iters", 4, "--n_embd", 16]

    resumed = run(*options, "--model_name", "dante")
    begun = run(*options, "--model_name", "new", "--init_from_model", "dante", "--n_layer", 9)

    assert (resumed.exit_code, resumed.stderr) == (0, "")
    assert begun.exit_code == 0, begun.output
    assert begun.stderr == "n_layer stays 1, as in the checkpoint, not 9\n"
    _refused(run(*options, "--model_name", "dante", "--dropout", 2), 2, "dropout is 2")


def test_no_step_on_a_new_model_is_nothing_to_do(train: Run) -> None:
    result = train("--max_iters", 0)

    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("nothing to do with --max_iters 0")
    assert not Path("checkpoints/dante").exists()


def test_resuming_beside_init_from_model_is_said(train: Run, dante: Path) -> None:
    train("--model_name", "mine", "--max_iters", 1)

    result = train("--model_name", "mine", "--init_from_model", "dante", "--max_iters", 2)

    assert result.exit_code == 0
    assert result.stderr.startswith("warning: resuming ")
    assert result.stderr.endswith("not starting from 'dante'\n")
    assert result.stderr.count("\n") == 1
    assert "going on at step 1" in result.stdout


def test_a_run_that_diverges_is_saved_and_says_so(run: Run, train: Run) -> None:
    result = train("--max_iters", 6, "--eval_interval", 3, "--learning_rate", 1e12)

    assert result.exit_code == 0, result.output
    assert "step 6/6: train loss nan, val loss nan, saved" in result.stdout
    assert result.stderr.splitlines() == [
        "warning: the loss is no finite number: the training has diverged; begin again with a "
        "smaller learning rate"
    ]
    checkpoint = ckptstore.open("checkpoints/dante")
    assert (checkpoint.step, checkpoint.metrics) == (6, {})
    _refused(run("generate", "--model_name", "dante"), 2, "weights hold infinities or NaN")


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--n_embd", 15], 2, "n_embd 15 is not a multiple of n_head 2"),
        (["--block_size", 6000], 2, "block_size 6000 needs 12002"),
        (["--tokenization", "klingon"], 1, "'klingon' is not installed"),
        (["--input_file", "absent"], 2, "'absent' does not exist"),
        (["--config_file", "bad.json"], 2, "bad.json is not JSON"),
        (["--input_file", "bad.bin"], 2, "bad.bin is not UTF-8 text"),
        (["--init_from_model", "absent"], 3, "absent"),
        (["--model_name", "../dante"], 2, "model_name is '../dante'"),
        (["--device", "graphics"], 2, "device is 'graphics'"),
        (["--max_iters", "many"], 2, "'many' is not a valid"),
        (["--learning_rate", 0], 2, "--learning_rate"),
        (["--seed", 2**64], 2, "'--seed'"),
        (["--bia"], 2, "no such option '--bia'; did you mean '--bias' or '--no-bias'? (see "),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    train: Run, arguments: list[object], code: int, part: str
) -> None:
    Path("bad.json").write_text("{")
    Path("bad.bin").write_bytes(b"\xff\xfe\xfd")

    _refused(train("--max_iters", 1, *arguments), code, part)


# -- generate -----------------------------------------------------------------------------


def test_generating_prints_the_prompt_and_what_follows(run: Run, dante: Path) -> None:
    options = ["generate", "--model_name", "dante", "--prompt", "Nel mezzo", "--seed", 1]
    first = run(*options, "--max_new_tokens", 30, "--top_k", 5, "--top_p", 0.9)

    assert first.exit_code == 0
    assert first.stdout.startswith("Nel mezzo")
    assert len(first.stdout) == len("Nel mezzo") + 30 + 1
    again = run(*options, "--max_new_tokens", 30, "--top_k", 5, "--top_p", 0.9)
    assert again.stdout == first.stdout


def test_generating_from_a_legacy_file(
    run: Run, legacy_file: Path, expected: dict[str, Any]
) -> None:
    shutil.copy(legacy_file, legacy_file.with_name("final.pt"))

    result = run("generate", "--model_name", "dante", "--legacy_checkpoint", "final.pt",
                 "--prompt", "Nel mezzo", "--max_new_tokens", 24, "--temperature", 0)  # fmt: skip

    assert result.stdout == expected["greedy_text"] + "\n"


def test_generating_where_no_tokenizer_is_recorded(
    run: Run, legacy_file: Path, gpt2_files: Path, make_config: Any
) -> None:
    model = GPT(make_config(vocab_size=50304))
    model.save_checkpoint_bundle("checkpoints/bare")
    options = ["generate", "--model_name", "bare", "--prompt", "Nel", "--max_new_tokens", 2]

    _refused(run(*options), 2, "no tokenizer", "--tokenization")
    assert run(*options, "--tokenization", "gpt2").stdout.startswith("Nel")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "Nel 7 €"], "'7' (U+0037), '€' (U+20AC)"),
        (["--prompt", "Nel", "--temperature", -1], "temperature is -1"),
        (["--prompt", "Nel", "--top_k", 0], "top_k is 0"),
        (["--prompt", "Nel", "--seed", 2**64], "--seed"),
    ],
)
def test_what_cannot_be_generated_is_one_line(
    run: Run, dante: Path, arguments: list[object], part: str
) -> None:
    _refused(run("generate", "--model_name", "dante", *arguments), 2, part)


def _empty(folder: Path) -> None:
    for each in folder.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)


def _other_files(folder: Path) -> None:
    _empty(folder)
    (folder / "notes.txt").write_text("nothing")


def _truncated(folder: Path) -> None:
    shutil.rmtree(folder / ".ckptstore")
    (folder / "manifest.json").unlink()
    weights = folder / "model.pt"
    weights.write_bytes(weights.read_bytes()[:1000])


def _invalid_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _other_layers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 8}))


def _unknown_kind(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"token_kind": "klingon"}')


def _more_characters(folder: Path) -> None:
    state = {"token_kind": "char", "chars": [chr(number) for number in range(65, 165)]}
    (folder / "tokenizer.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    ("damage", "code", "part"),
    [
        (_remove, 3, "no checkpoint in "),
        (_empty, 3, "no checkpoint in "),
        (_other_files, 3, "notes.txt"),
        (_truncated, 4, "model.pt"),
        (_invalid_json, 4, "config.json"),
        (_other_layers, 4, "config.json says n_layer 8, model.pt holds 1"),
        (_unknown_kind, 1, "'klingon' is not installed"),
        (_more_characters, 4, "another one than the model was trained on"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_one_line(
    run: Run, dante: Path, damage: Callable[[Path], None], code: int, part: str
) -> None:
    damage(dante)

    _refused(run("generate", "--model_name", "dante", "--prompt", "Nel"), code, part)


@pytest.mark.parametrize(("text", "first"), [("ab\nc" * 20, "\n"), ("ba" * 40, "a")])
def test_generating_without_a_prompt_begins_with_a_line_break_or_the_first_id(
    run: Run, train: Run, text: str, first: str
) -> None:
    Path("text").write_text(text)
    train("--input_file", "text", "--max_iters", 1)

    result = run("generate", "--model_name", "dante", "--max_new_tokens", 5)

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(first)
    assert len(result.stdout) == len(first) + 5 + 1


def test_the_kind_char_alone_does_not_say_which_characters(
    run: Run, legacy_file: Path, legacy: dict[str, Any]
) -> None:
    torch.save({**legacy, "tokenizer": None}, legacy_file)

    result = run("generate", "--model_name", "dante", "--legacy_checkpoint", "latest.pt",
                 "--tokenization", "char")  # fmt: skip

    _refused(result, 2, "'char' needs the characters", "latest.pt does not record")


# -- inspect ------------------------------------------------------------------------------


def test_inspecting_prints_the_sections_of_the_format_document(run: Run, dante: Path) -> None:
    lines = run("inspect", "--model_name", "dante").stdout.splitlines()

    assert lines[:3] == ["=== FORMAT ===", "New JSON-based format", "Location: checkpoints/dante"]
    config = lines[lines.index("=== CONFIG ===") + 1]
    assert config.startswith("batch_size:4, block_size:16, vocab_size:")
    kind, vocab = lines[lines.index("=== TOKENIZER ===") + 1 :][:2]
    assert kind == "kind      : char"
    assert vocab.startswith("vocab     : ")
    assert vocab.endswith(" characters")
    assert lines[lines.index("=== TRAINING STATE ===") + 1] == "Last recorded training step: 3"
    assert "Number of tensors: 22" in lines


def test_inspecting_gpt2_needs_no_vocabulary(run: Run, make_config: Any) -> None:
    GPT(make_config(), token_kind="gpt2").save_checkpoint_bundle("checkpoints/dante", step=1000)

    lines = run("inspect", "--model_name", "dante").stdout.splitlines()

    assert "kind      : gpt2" in lines
    assert "vocab     : GPT-2 BPE (fixed ~50k tokens)" in lines
    assert "Last recorded training step: 1000" in lines


def test_inspecting_a_legacy_file(run: Run, legacy_file: Path) -> None:
    for options in ([], ["--legacy_checkpoint", "latest.pt"]):
        result = run("inspect", "--model_name", "dante", *options)

        assert result.exit_code == 0
        assert "Legacy single-file format" in result.stdout
        assert "Not verified" in result.stdout
        assert "vocab     : 41 characters" in result.stdout
        assert "Last recorded training step: 20" in result.stdout


def test_inspecting_says_what_was_edited_and_what_is_missing(run: Run, dante: Path) -> None:
    config = json.loads((dante / "config.json").read_text())
    (dante / "config.json").write_text(json.dumps({**config, "batch_size": 99}))
    (dante / "tokenizer.json").write_text('{"token_kind": "klingon"}')

    output = run("inspect", "--model_name", "dante").stdout

    assert "Edited by hand: config.json, tokenizer.json" in output
    assert "batch_size:99, " in output
    assert "vocab     : the tokenizer kind 'klingon' is not installed" in output


def test_inspecting_says_where_config_and_weights_contradict_each_other(
    run: Run, dante: Path
) -> None:
    _other_layers(dante)

    result = run("inspect", "--model_name", "dante")

    assert result.exit_code == 4
    lines = result.stdout.splitlines()
    sections = [lines.index(f"=== {title} ===") for title in ("FORMAT", "CONFIG", "TOKENIZER")]
    assert "Edited by hand: config.json" in lines[sections[0] : sections[1]]
    config = "\n".join(lines[sections[1] : sections[2]])
    assert "n_layer:8" in config
    assert "config.json says n_layer 8, model.pt holds 1" in config


def test_inspecting_a_config_that_cannot_be_used_says_so(
    run: Run, legacy_file: Path, legacy: dict[str, Any]
) -> None:
    torch.save({**legacy, "config": {**legacy["config"], "dropout": 7}}, legacy_file)

    result = run("inspect", "--model_name", "dante")

    assert result.exit_code == 4
    assert "its config cannot be used: dropout is 7" in result.stdout


# -- what is said beside the result -------------------------------------------------------


def test_without_a_command_the_help_is_printed_and_the_exit_code_is_2(run: Run) -> None:
    result = run()

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == run("--help").stdout
    _refused(run("tran"), 2, "there is no command 'tran'; did you mean 'train'? (see ")


def test_warnings_in_the_log_of_the_store_are_warning_lines(train: Run, shell: Any) -> None:
    options = [*QUICK, *SIZES, "--max_iters", 1, "--model_name", "dante"]
    noisy = (
        "import logging, gpt.checkpoint as c; from gpt.__main__ import main\n"
        "class Manager(c.CheckpointManager):\n"
        "    def exists(self):\n"
        "        log = logging.getLogger('ckptstore.storage.s3')\n"
        "        log.warning('no conditions in %s', 'b'); log.info('a step')\n"
        "        return super().exists()\n"
        "c.CheckpointManager = Manager; main()"
    )

    result = shell("-c", noisy, "train", *options)

    assert (result.returncode, result.stderr) == (0, "warning: no conditions in b\n")


# -- the processes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["-m", "gpt", "--help"], "torch|fsspec|s3fs|tiktoken"),
        (["-m", "gpt", "train", "--help"], "torch|fsspec|s3fs|tiktoken"),
        (["-m", "gpt", "inspect", "--model_name", "dante"], "torch|s3fs|tiktoken"),
    ],
)
def test_help_and_inspect_import_nothing_heavy(
    shell: Any, dante: Path, arguments: list[str], unwanted: str
) -> None:
    result = shell("-X", "importtime", *arguments)

    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert result.returncode == 0, result.stderr
    assert imported & set(unwanted.split("|")) == set()


@pytest.mark.parametrize("module", ["gpt.train", "gpt.generate", "gpt.inspect_model"])
def test_each_command_is_a_module_too(shell: Any, module: str) -> None:
    helped = shell("-m", module, "--help")
    refused = shell("-m", module, "--model_name", "..", *(["--prompt", "x"] * ("gen" in module)))

    assert f"python -m {module}" in helped.stdout
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("error: model_name is '..'")
