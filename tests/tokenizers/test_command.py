"""``ckptstore tokenizer``, and the options of ``sync`` and ``convert`` about what it is for."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import ckptstore
from ckptstore.cli import main
from ckptstore.testing.servers import S3Server
from ckptstore.tokenizers import gpt2_files
from tests.tokenizers.conftest import Server

Run = Callable[..., Result]
STATE = {"token_kind": "gpt2"}
NAME = "tokenizer.tiktoken"
FILES = gpt2_files.FILES
NAMES = [file.cached_as for file in FILES]
WEIGHTS = {"w": torch.ones(3)}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Give a function that runs the command line in this process, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give a function that takes what is on this machine away."""
    return lambda: monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "nothing"))


@pytest.fixture
def dante(run: Run) -> Path:
    """Give a training's checkpoint, which carries nothing."""
    optimizer = {"state": {}, "param_groups": []}
    ckptstore.save("dante", model=WEIGHTS, tokenizer=STATE, optimizer=optimizer, step=5)
    return Path("dante")


class TestFetch:
    def test_it_says_what_was_fetched_and_what_to_set(self, openai: Server, run: Run) -> None:
        folder = Path("my ranks").absolute()

        first = run("tokenizer", "fetch", "--to", "my ranks")
        again = run("tokenizer", "fetch", "gpt2", "--to", "my ranks")

        setting = f"to use them set TIKTOKEN_CACHE_DIR='{folder}'\n"
        assert first.stdout == f"{folder}: fetched 2 files of 2 files\n{setting}"
        assert again.stdout == f"{folder}: all of 2 files there already\n{setting}"
        assert (first.exit_code, again.exit_code, openai.asked) == (
            0, 0, ["vocab.bpe", "encoder.json"],
        )  # fmt: skip

    def test_where_tiktoken_looks_nothing_is_to_be_set(
        self, openai: Server, run: Run, nothing: Callable[[], None]
    ) -> None:
        nothing()

        done = run("tokenizer", "fetch")

        folder = Path("nothing").absolute()
        assert done.stdout == f"{folder}: fetched 2 files of 2 files\n"

    def test_tiktokens_own_folder_is_said_to_be_temporary(
        self, openai: Server, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

        done = run("tokenizer", "fetch")

        assert done.stdout.startswith(f"{tmp_path / 'data-gym-cache'}: fetched 2 files")
        assert "is a temporary one; with --to FOLDER the files stay" in done.stdout

    def test_a_program_reads_it_as_json(self, openai: Server, run: Run) -> None:
        done = run("tokenizer", "fetch", "--to", "ranks", "--json")

        folder = str(Path("ranks").absolute())
        assert json.loads(done.stdout) == {
            "kind": "gpt2",
            "folder": folder,
            "files": NAMES,
            "fetched": NAMES,
            "variables": {"TIKTOKEN_CACHE_DIR": folder},
        }

    def test_without_a_network_the_error_is_one_line_with_address_and_files(
        self, openai: Server, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gpt2_files, "SOURCE", "http://127.0.0.1:9/")

        done = run("tokenizer", "fetch", "--to", "ranks")

        assert done.exit_code == 1
        assert done.stderr.startswith("error: vocab.bpe was not downloaded from http://127.0.0.1:9")
        assert all(file.cached_as in done.stderr for file in FILES)
        assert done.stderr.count("\n") == 1
        assert not Path("ranks").exists()

    def test_what_a_server_sends_instead_is_damage(self, openai: Server, run: Run) -> None:
        openai.answers["vocab.bpe"] = (200, b"please log in", 13)

        done = run("tokenizer", "fetch", "--to", "ranks")

        assert done.exit_code == 4
        assert "look whether a proxy answers in its place" in done.stderr

    @pytest.mark.parametrize(
        ("kind", "said"),
        [
            ("char", "kind 'char' has no files to fetch"),
            ("gpt3", "kind 'gpt3' is not installed"),
        ],
    )
    def test_a_kind_that_cannot_be_fetched_says_why(
        self, openai: Server, run: Run, kind: str, said: str
    ) -> None:
        done = run("tokenizer", "fetch", kind)

        assert done.exit_code == 1
        assert said in done.stderr
        assert openai.asked == []


class TestExport:
    @pytest.mark.parametrize("where", ["machine", "local", "moto"])
    def test_openais_files_come_out_and_tiktoken_works_offline_with_them(
        self,
        run: Run,
        dante: Path,
        gpt2_files: Path,
        nothing: Callable[[], None],
        moto_server: S3Server,
        where: str,
    ) -> None:
        source, options = "gpt2", []
        if where != "machine":
            source = "copy" if where == "local" else moto_server.url("copy")
            own = None if where == "local" else moto_server.storage_options
            ckptstore.sync(dante, source, optimizer=False, destination_options=own)
            options = [f"{key}={value}" for key, value in (own or {}).items()]
            nothing()

        more = [word for option in options for word in ("--storage-option", option)]
        done = run("tokenizer", "export", source, "ranks", *more)

        assert done.exit_code == 0, done.stderr
        assert f"-> {Path('ranks').absolute()}: wrote 2 files (1.5 MB)\n" in done.stdout
        for name in NAMES:
            assert Path("ranks", name).read_bytes() == (gpt2_files / name).read_bytes()
        asked = subprocess.run(
            [sys.executable, "-c", "import tiktoken; print(tiktoken.get_encoding('gpt2').n_vocab)"],
            env={**os.environ, "TIKTOKEN_CACHE_DIR": "ranks", "HTTPS_PROXY": "http://127.0.0.1:9"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert asked.stdout == "50257\n", asked.stderr

    def test_a_step_and_the_file_as_it_is_carried_can_be_asked_for(
        self, run: Run, gpt2_files: Path
    ) -> None:
        with ckptstore.Store("run", keep=ckptstore.Keep()) as store:
            store.save(model=WEIGHTS, tokenizer=STATE, step=1, vocabulary=True)
            store.save(model=WEIGHTS, tokenizer=STATE, step=2)

        first = run("tokenizer", "export", "run", "ranks", "--step", 1, "--carried", "--json")
        newest = run("tokenizer", "export", "run", "other")

        told = json.loads(first.stdout)
        assert [file["name"] for file in told["files"]] == [*NAMES, NAME]
        assert {file["new"] for file in told["files"]} == {True}
        for file in told["files"]:
            data = Path("ranks", file["name"]).read_bytes()
            assert (file["size"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert (told["kind"], told["variables"]) == ("gpt2", {"TIKTOKEN_CACHE_DIR": told["folder"]})
        assert newest.exit_code == 3
        assert "carries no files of its 'gpt2' tokenizer; export those of" in newest.stderr

    def test_again_it_changes_nothing_and_another_file_is_a_conflict(
        self, run: Run, gpt2_files: Path
    ) -> None:
        run("tokenizer", "export", "gpt2", "ranks")

        again = run("tokenizer", "export", "gpt2", "ranks")
        Path("ranks", NAMES[0]).unlink()
        half = run("tokenizer", "export", "gpt2", "ranks")
        Path("ranks", NAMES[0]).unlink()
        Path("ranks", NAMES[1]).write_text("mine")
        refused = run("tokenizer", "export", "gpt2", "ranks")

        assert "all of 2 files there already" in again.stdout
        assert "wrote 1 file (456 kB) of 2, the others are there already" in half.stdout
        assert refused.exit_code == 6
        assert f"{NAMES[1]} is in" in refused.stderr
        assert Path("ranks", NAMES[1]).read_text() == "mine"
        assert not Path("ranks", NAMES[0]).exists()

    def test_a_file_where_the_folder_should_be_is_a_conflict(
        self, run: Run, gpt2_files: Path
    ) -> None:
        Path("ranks").write_text("mine")

        done = run("tokenizer", "export", "gpt2", "ranks")

        assert done.exit_code == 6
        assert "is a file, not a folder; choose another" in done.stderr

    def test_a_bucket_is_no_folder(self, run: Run, gpt2_files: Path) -> None:
        done = run("tokenizer", "export", "gpt2", "s3://bucket/ranks")

        assert done.exit_code == 1
        assert "s3:// is no folder on this machine" in done.stderr

    def test_what_is_not_on_the_machine_is_named(self, run: Run) -> None:
        done = run("tokenizer", "export", "gpt2", "ranks")

        assert done.exit_code == 1
        assert "'gpt2' needs tokenizer.tiktoken, which is not on this machine" in done.stderr
        assert "ckptstore tokenizer fetch gpt2" in done.stderr
        assert not Path("ranks").exists()

    def test_a_folder_that_is_called_like_a_kind_is_asked_for_as_a_path(
        self, run: Run, dante: Path, gpt2_files: Path
    ) -> None:
        ckptstore.sync(dante, "gpt2", optimizer=False)

        kind = run("tokenizer", "export", "gpt2", "a", "--json")
        folder = run("tokenizer", "export", "./gpt2", "b", "--json")

        assert json.loads(kind.stdout)["source"] == "this machine"
        assert json.loads(folder.stdout)["source"] == "./gpt2"

    def test_kinds_and_checkpoints_without_files_say_so(self, run: Run) -> None:
        ckptstore.save("char", model=WEIGHTS, tokenizer={"token_kind": "char", "chars": ["a"]})
        ckptstore.save("bare", model=WEIGHTS)

        of_kind = run("tokenizer", "export", "./char", "ranks")
        without = run("tokenizer", "export", "bare", "ranks")
        nowhere = run("tokenizer", "export", "nowhere", "ranks")

        assert (of_kind.exit_code, without.exit_code, nowhere.exit_code) == (1, 3, 3)
        assert "kind 'char' has no files beside tokenizer.json" in of_kind.stderr
        assert "has no tokenizer, so there is nothing to export" in without.stderr
        assert not Path("ranks").exists()

    def test_a_strangers_ranks_are_not_written(self, run: Run) -> None:
        ckptstore.save("a", model=WEIGHTS, tokenizer=STATE, vocabulary={NAME: b"YQ== 0\n"})

        done = run("tokenizer", "export", "a", "ranks")

        assert done.exit_code == 4
        assert "is not the list of gpt2's ranks" in done.stderr
        assert not Path("ranks").exists()

    def test_files_of_a_kind_that_is_not_installed_are_written_as_they_are(self, run: Run) -> None:
        state = {"token_kind": "klingon"}
        ckptstore.save("a", model=WEIGHTS, tokenizer=state, vocabulary={"tokenizer.k": b"qapla"})

        done = run("tokenizer", "export", "a", "ranks")

        assert done.exit_code == 0, done.stderr
        assert Path("ranks/tokenizer.k").read_bytes() == b"qapla"


class TestCopies:
    def test_sync_for_inference_carries_them_and_can_be_told_not_to(
        self, run: Run, dante: Path, gpt2_files: Path
    ) -> None:
        run("sync", dante, "small", "--no-optimizer")
        run("sync", dante, "less", "--no-optimizer", "--no-vocabulary")
        run("sync", dante, "whole")
        run("sync", dante, "more", "--vocabulary")
        again = run("sync", dante, "small", "--no-optimizer")

        carrying = [
            place for place in ("small", "less", "whole", "more") if Path(place, NAME).exists()
        ]
        assert carrying == ["small", "more"]
        assert Path("more/optimizer.pt").exists()
        assert "the same already" in again.stdout

    def test_convert_does_the_same(
        self, run: Run, dante: Path, gpt2_files: Path, nothing: Callable[[], None]
    ) -> None:
        run("convert", dante, "old.pt", "--to", "legacy")
        for place, *more in (
            ("small", "--no-optimizer"),
            ("less", "--no-optimizer", "--no-vocabulary"),
            ("whole",),
            ("more", "--vocabulary"),
        ):
            assert run("convert", "old.pt", place, *more).exit_code == 0
        again = run("convert", "old.pt", "small", "--no-optimizer")
        nothing()
        left = run("convert", "more", "left.pt", "--to", "legacy")

        carrying = [
            place for place in ("small", "less", "whole", "more") if Path(place, NAME).exists()
        ]
        assert carrying == ["small", "more"]
        assert "the same already" in again.stdout
        assert NAME in left.stdout.partition("left out: ")[2]

    def test_what_is_asked_for_and_not_there_is_an_error(self, run: Run, dante: Path) -> None:
        done = run("sync", dante, "copy", "--vocabulary")

        assert done.exit_code == 1
        assert "get it with ckptstore tokenizer fetch gpt2, or save without it" in done.stderr
        assert not Path("copy").exists()

    def test_verify_proves_the_file_and_inspect_lists_it(
        self, run: Run, dante: Path, gpt2_files: Path
    ) -> None:
        run("sync", dante, "copy", "--no-optimizer")

        inspected = run("inspect", "copy", "--json")
        sound = run("verify", "copy")
        (held,) = Path("copy/.ckptstore/00000001").glob("tokenizer.*.tiktoken")
        held.chmod(0o644)
        held.write_bytes(held.read_bytes().replace(b" 262\n", b" 263\n"))
        damaged = run("verify", "copy")

        assert NAME in inspected.stdout
        assert sound.exit_code == 0
        assert NAME in sound.stdout
        assert damaged.exit_code == 4
        assert f"{NAME} in" in damaged.stdout + damaged.stderr
