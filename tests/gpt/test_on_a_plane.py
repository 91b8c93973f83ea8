"""A gpt2 model works where there is no network and tiktoken has kept nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import ckptstore
from ckptstore.testing.servers import S3Server
from ckptstore.tokenizers import gpt2
from gpt.checkpoint import CheckpointManager
from gpt.model import GPT

NAME = "tokenizer.tiktoken"
GPT2 = {"token_kind": "gpt2"}
PROMPT = "Hello, world! 漢"
ASKED = ("--prompt", PROMPT, "--max_new_tokens", "12", "--seed", "7")
SIZES = ("--batch_size", "2", "--block_size", "8", "--n_embd", "8", "--n_head", "2")
SIZES += ("--n_layer", "1", "--eval_iters", "1", "--eval_interval", "1", "--seed", "1")


@pytest.fixture
def plane(tmp_path: Path) -> dict[str, str]:
    """Give the environment of a process on a plane: nothing is kept, and nobody answers."""
    (tmp_path / "nothing").mkdir()
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    dead = dict.fromkeys((*names, *map(str.lower, names)), "http://127.0.0.1:9")
    here = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    return {**dead, **here, "TIKTOKEN_CACHE_DIR": str(tmp_path / "nothing")}


@pytest.fixture
def model(gpt2_files: Path, make_config: Any) -> GPT:
    """Give a gpt2 model, trained at ``checkpoints/dante``: the five files and no more."""
    torch.manual_seed(3)
    made = GPT(make_config(vocab_size=50304), GPT2)
    optimizer = made.configure_optimizer().state_dict()
    made.save_checkpoint_bundle("checkpoints/dante", step=5, optimizer_state=optimizer)
    assert NAME not in os.listdir("checkpoints/dante")
    return made.eval()


@pytest.fixture
def wanted(model: GPT) -> str:
    """Give what the model writes where everything is there."""
    return model.generate(PROMPT, 12, seed=7)


def generated(
    base: str, environ: Mapping[str, str], *more: str
) -> subprocess.CompletedProcess[str]:
    command = ["generate", "--model_name", "dante", "--base_dir", base, *ASKED, *more]
    return subprocess.run(
        [sys.executable, "-m", "gpt", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


@pytest.fixture
def boarded(plane: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Give a function that generates in this process, as soon as it is on a plane too."""
    from gpt.__main__ import main

    def boarded(base: str) -> Any:
        for name, value in plane.items():
            monkeypatch.setenv(name, value)
        gpt2._vocabulary.cache_clear()
        command = ["generate", "--model_name", "dante", "--base_dir", base, *ASKED]
        return CliRunner().invoke(main, command)

    return boarded


def test_a_copy_for_inference_generates_on_a_plane(wanted: str, plane: dict[str, str]) -> None:
    ckptstore.sync("checkpoints/dante", "share/dante", optimizer=False)

    done = generated("share", plane)

    assert (done.returncode, done.stdout) == (0, wanted + "\n"), done.stderr
    assert os.listdir(plane["TIKTOKEN_CACHE_DIR"]) == []


def test_without_the_ranks_it_says_what_helps(model: GPT, boarded: Callable[[str], Any]) -> None:
    ckptstore.sync("checkpoints/dante", "share/dante", optimizer=False, vocabulary=False)

    done = boarded("share")

    assert done.exit_code == 1
    assert "get them with ckptstore tokenizer fetch" in done.stderr
    assert os.environ["TIKTOKEN_CACHE_DIR"] in done.stderr


def test_a_plain_copy_of_the_files_generates_on_a_plane(wanted: str, plane: dict[str, str]) -> None:
    ckptstore.sync("checkpoints/dante", "share/dante", optimizer=False)
    Path("plain/dante").mkdir(parents=True)
    for name in ("model.pt", "config.json", "tokenizer.json", NAME):
        Path("plain/dante", name).write_bytes(Path("share/dante", name).read_bytes())

    done = generated("plain", plane)

    assert (done.returncode, done.stdout) == (0, wanted + "\n"), done.stderr


def test_a_bucket_generates_where_nothing_else_answers(
    wanted: str, plane: dict[str, str], moto_server: S3Server
) -> None:
    base = f"s3://{moto_server.bucket()}/share"
    options = moto_server.storage_options
    ckptstore.sync(
        "checkpoints/dante", f"{base}/dante", optimizer=False, destination_options=options
    )

    done = generated(base, {**plane, **moto_server.environ})

    assert (done.returncode, done.stdout) == (0, wanted + "\n"), done.stderr


def test_memory_generates_on_a_plane(wanted: str, plane: dict[str, str]) -> None:
    ckptstore.sync("checkpoints/dante", "share/dante", optimizer=False)
    code = f"""
        import ckptstore
        from gpt.checkpoint import CheckpointManager
        ckptstore.sync("share/dante", "memory://plane/dante")
        model = CheckpointManager.load_for_inference("dante", "memory://plane")
        print(ascii(model.generate({PROMPT!r}, 12, seed=7)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **plane},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )

    assert done.stdout == ascii(wanted) + "\n", done.stderr


def test_a_step_of_a_history_loads_on_a_plane(
    model: GPT, wanted: str, monkeypatch: pytest.MonkeyPatch, plane: dict[str, str]
) -> None:
    with ckptstore.Store("run", keep=ckptstore.Keep()) as store:
        for step in (1, 2):
            store.save(model=model, config=model.config.to_dict(), tokenizer=GPT2, step=step)
    ids = model.encode(PROMPT)
    copied = list(ckptstore.sync_steps("run", "copy", optimizer=False))
    again = list(ckptstore.sync_steps("run", "copy", optimizer=False))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", plane["TIKTOKEN_CACHE_DIR"])

    assert [done.changed for done in (*copied, *again)] == [True, True, False, False]
    tokenizer = ckptstore.open("copy", step=1).load_tokenizer()
    assert tokenizer.encode(PROMPT) == ids
    assert GPT.load("copy")[0].generate(PROMPT, 12, seed=7) == wanted


def test_damaged_ranks_are_named_with_their_chunk(
    model: GPT, boarded: Callable[[str], Any]
) -> None:
    ckptstore.sync("checkpoints/dante", "share/dante", optimizer=False)
    (held,) = Path("share/dante/.ckptstore/00000001").glob("tokenizer.*.tiktoken")
    data = bytearray(held.read_bytes())
    data[400_000] ^= 1
    held.chmod(0o644)
    held.write_bytes(data)

    done = boarded("share")

    assert done.exit_code == 4
    assert "tokenizer.tiktoken in" in done.stderr
    assert "is damaged: chunk 0 is xxh3" in done.stderr
    report = ckptstore.open("share/dante").verify()
    assert next(file.status for file in report.files if file.name == NAME) == "damaged"


def test_a_strangers_ranks_under_the_name_of_gpt2_are_refused(
    model: GPT, boarded: Callable[[str], Any]
) -> None:
    ranks = dict(model.tokenizer.files())[NAME]
    ckptstore.save(
        "share/dante",
        model=model,
        config=model.config.to_dict(),
        tokenizer=GPT2,
        vocabulary={NAME: ranks.replace(b"IHRoZQ== 262\n", b"IHRlaA== 262\n")},
    )

    done = boarded("share")

    assert done.exit_code == 4
    assert "tokenizer.tiktoken is not the list of gpt2's ranks" in done.stderr


def test_what_a_model_was_loaded_with_is_saved_with_it(
    model: GPT, monkeypatch: pytest.MonkeyPatch, plane: dict[str, str]
) -> None:
    ckptstore.sync("checkpoints/dante", "share/dante", vocabulary=True)
    ids = model.encode(PROMPT)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", plane["TIKTOKEN_CACHE_DIR"])
    ranks = Path("share/dante", NAME).read_bytes()

    loaded, _, step, optimizer = GPT.load("share/dante")
    loaded.save("share/dante")
    loaded.save_checkpoint_bundle("other/dante", step=step, optimizer_state=optimizer)

    for place in ("share/dante", "other/dante"):
        checkpoint = ckptstore.open(place)
        assert checkpoint.tokenizer_files()[NAME] == ranks
        assert checkpoint.has_optimizer
    assert loaded.encode(PROMPT) == ids  # though what it came from is replaced


def test_a_training_carries_the_ranks_where_it_is_asked_to_and_goes_on_with_them(
    text: str, run: Any, gpt2_files: Path, plane: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("text.txt").write_text(text[:2000], "utf-8")
    train = ("train", "--model_name", "dante", "--input_file", "text.txt", *SIZES)
    train += ("--tokenization", "gpt2")

    first = run(*train, "--max_iters", 1, "--carry_vocabulary")
    assert first.exit_code == 0, first.output
    carried = ckptstore.open("checkpoints/dante").tokenizer_files()[NAME]
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", plane["TIKTOKEN_CACHE_DIR"])
    second = run(*train, "--max_iters", 2)

    assert second.exit_code == 0, second.output
    checkpoint = ckptstore.open("checkpoints/dante")
    assert (checkpoint.step, checkpoint.tokenizer_files()[NAME]) == (2, carried)
    assert json.loads(Path("checkpoints/dante/tokenizer.json").read_text()) == GPT2
    assert CheckpointManager.load_for_inference("dante").encode("Hello") == [15496]


def test_a_kind_without_files_has_nothing_to_carry(text: str, run: Any) -> None:
    Path("text.txt").write_text(text[:2000], "utf-8")
    train = ("train", "--model_name", "dante", "--input_file", "text.txt", *SIZES)

    done = run(*train, "--max_iters", 1, "--carry_vocabulary")

    assert done.exit_code == 0, done.output
    assert dict(ckptstore.open("checkpoints/dante").tokenizer_files()) == {}


def test_a_tokenizer_whose_files_are_not_here_is_said_before_the_training(
    text: str, run: Any, gpt2_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ckptstore.tokenizers.gpt2 import Gpt2Tokenizer

    Path("text.txt").write_text(text[:2000], "utf-8")
    monkeypatch.setattr(Gpt2Tokenizer, "files", lambda self: {})
    train = ("train", "--model_name", "dante", "--input_file", "text.txt", *SIZES)

    done = run(*train, "--tokenization", "gpt2", "--max_iters", 1, "--carry_vocabulary")

    assert done.exit_code == 1
    assert "'gpt2' tokenizer needs tokenizer.tiktoken, which is not on this machine" in done.stderr
    assert not Path("checkpoints").exists()
