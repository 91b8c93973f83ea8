"""What a tokenizer names and does not hold travels with the checkpoint, whatever kind it is.

The kind of these tests names a list of words, which lies in a folder of the machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import ckptstore
from ckptstore import plugins
from ckptstore.cli import main
from ckptstore.errors import ConflictError, CorruptionError, NotFoundError, UnsupportedError
from ckptstore.testing import Crash, Killed, asked, inject
from ckptstore.transfer import sending
from tests.plugins.conftest import Install

STATE = {"token_kind": "words", "list": "english"}
WORDS = b"a\nan\nthe\n"
NAME = "tokenizer.words"
WEIGHTS = {"w": torch.tensor([1.0, 2.5])}
KIND = f"""
    import hashlib, os, pathlib
    from ckptstore import CorruptionError, UnsupportedError, hookimpl
    from ckptstore.tokenizers.base import Tokenizer

    class Words(Tokenizer):
        kind = "words"

        def __init__(self, data):
            self.data = data
            self.words = data.decode().split()

        @classmethod
        def from_state(cls, state):
            found = cls.files_of(state)
            if not found:
                raise UnsupportedError("the list of words is not on this machine")
            return cls.from_files(state, found)

        @classmethod
        def from_files(cls, state, files):
            if {NAME!r} not in files:
                return cls.from_state(state)
            data = files[{NAME!r}]
            if hashlib.sha256(data).hexdigest() != {hashlib.sha256(WORDS).hexdigest()!r}:
                raise CorruptionError("these are other words")
            return cls(data)

        @classmethod
        def from_text(cls, text):
            return cls.from_state({STATE!r})

        @classmethod
        def file_names_of(cls, state):
            return ({NAME!r},)

        @classmethod
        def files_of(cls, state):
            path = pathlib.Path(os.environ["WORDS"], "english")
            return {{{NAME!r}: path.read_bytes()}} if path.exists() else {{}}

        def files(self):
            return {{{NAME!r}: self.data}}

        @property
        def n_vocab(self):
            return len(self.words)

        def encode(self, text):
            return [self.words.index(word) for word in text.split()]

        def decode(self, ids):
            return " ".join(self.words[number] for number in ids)

        def state(self):
            return dict({STATE!r})

    @hookimpl
    def ckptstore_tokenizers():
        return [Words]
"""


@pytest.fixture(autouse=True)
def words(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the list of this machine, of a kind that is installed."""
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "english").write_bytes(WORDS)
    monkeypatch.setenv("WORDS", str(folder))
    install("ckptstore-words", KIND)
    return folder / "english"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Give a checkpoint of a training, which carries nothing."""
    ckptstore.save(
        tmp_path / "bare",
        model=WEIGHTS,
        config={"n": 1},
        tokenizer=STATE,
        optimizer={"state": {}, "param_groups": []},
        step=5,
    )
    return tmp_path / "bare"


@pytest.fixture
def carrying(tmp_path: Path) -> Path:
    """Give a checkpoint that carries the list."""
    ckptstore.save(tmp_path / "carrying", model=WEIGHTS, tokenizer=STATE, step=5, vocabulary=True)
    return tmp_path / "carrying"


def encoded(location: Any) -> list[int]:
    return ckptstore.open(location).load_tokenizer().encode("the a an")


class TestSaving:
    def test_a_save_carries_nothing_unless_it_is_asked_to(self, bare):
        assert NAME not in ckptstore.open(bare).files()
        assert dict(ckptstore.open(bare).tokenizer_files()) == {}

    @pytest.mark.parametrize("of_an_object", [False, True])
    def test_what_is_carried_is_enough_where_nothing_is_on_the_machine(
        self, tmp_path, words, of_an_object
    ):
        tokenizer = plugins.load_tokenizer(STATE) if of_an_object else STATE
        ckptstore.save(tmp_path / "a", model=WEIGHTS, tokenizer=tokenizer, vocabulary=True)
        words.unlink()

        assert encoded(tmp_path / "a") == [2, 0, 1]
        assert (tmp_path / "a" / NAME).read_bytes() == WORDS

    def test_a_tokenizer_brings_its_own_files_to_a_machine_that_has_none(self, tmp_path, words):
        tokenizer = plugins.load_tokenizer(STATE)
        words.unlink()

        saved = ckptstore.save(tmp_path / "a", model=WEIGHTS, tokenizer=tokenizer, vocabulary=True)

        assert saved.tokenizer_files()[NAME] == WORDS

    def test_files_of_another_checkpoint_can_be_saved(self, tmp_path, carrying, words):
        words.unlink()
        files = ckptstore.open(carrying).tokenizer_files()

        ckptstore.save(tmp_path / "b", model=WEIGHTS, tokenizer=STATE, vocabulary=files)

        assert encoded(tmp_path / "b") == [2, 0, 1]

    def test_a_save_in_the_background_and_a_step_carry_them_too(self, tmp_path, words):
        with ckptstore.Store(tmp_path / "run", keep=ckptstore.Keep(last=2)) as store:
            future = store.save_async(model=WEIGHTS, tokenizer=STATE, step=1, vocabulary=True)
            assert future.result().tokenizer_files()[NAME] == WORDS
            store.save(model=WEIGHTS, tokenizer=STATE, step=2, vocabulary=True)
        words.unlink()

        assert store.open(1).load_tokenizer().encode("the") == [2]
        assert encoded(tmp_path / "run") == [2, 0, 1]

    def test_what_is_not_on_the_machine_is_named(self, tmp_path, words):
        words.unlink()

        with pytest.raises(UnsupportedError, match=r"'words' needs tokenizer\.words, which is not"):
            ckptstore.save(tmp_path / "a", model=WEIGHTS, tokenizer=STATE, vocabulary=True)

        assert not (tmp_path / "a").exists()

    def test_a_kind_that_is_not_installed_is_named(self, tmp_path):
        with pytest.raises(UnsupportedError, match="kind 'klingon' is not installed"):
            ckptstore.save(
                tmp_path / "a", model=WEIGHTS, tokenizer={"token_kind": "klingon"}, vocabulary=True
            )

    def test_a_kind_that_has_no_files_has_nothing_to_carry(self, tmp_path):
        state = {"token_kind": "char", "chars": ["a"]}

        saved = ckptstore.save(tmp_path / "a", model=WEIGHTS, tokenizer=state, vocabulary=True)

        assert dict(saved.tokenizer_files()) == {}

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            ({"tokenizer.json": b""}, "cannot be called 'tokenizer.json'"),
            ({"tokenizer.pt": b""}, "cannot be called 'tokenizer.pt'"),
            ({"model.words": b""}, "cannot be called 'model.words'"),
            ({"tokenizer.": b""}, "cannot be called 'tokenizer.'"),
            ({"tokenizer.a": bytes(33 * 2**20), "tokenizer.b": bytes(33 * 2**20)}, "than 64 MiB"),
        ],
    )
    def test_files_that_could_not_be_read_back_are_refused(self, tmp_path, files, said):
        with pytest.raises(UnsupportedError, match=said):
            ckptstore.save(tmp_path / "a", model=WEIGHTS, tokenizer=STATE, vocabulary=files)

        assert not (tmp_path / "a").exists()

    def test_a_name_that_leads_outside_is_refused(self, tmp_path):
        with pytest.raises(ckptstore.UnsafeError, match="not a plain file name"):
            ckptstore.save(
                tmp_path / "a", model=WEIGHTS, tokenizer=STATE, vocabulary={"tokenizer./../x": b""}
            )

    def test_files_without_a_tokenizer_are_refused(self, tmp_path):
        with pytest.raises(UnsupportedError, match=r"tokenizer\.words would be saved without"):
            ckptstore.save(tmp_path / "a", model=WEIGHTS, vocabulary={NAME: WORDS})

    def test_what_vocabulary_can_be_is_said(self, tmp_path):
        with pytest.raises(UnsupportedError, match="vocabulary is 'yes'; there are True, False"):
            ckptstore.save(tmp_path / "a", model=WEIGHTS, vocabulary="yes")  # type: ignore[arg-type]


class TestReading:
    def test_they_are_in_the_manifest_and_proved(self, carrying):
        checkpoint = ckptstore.open(carrying)

        assert checkpoint.files()[NAME].sha256 == hashlib.sha256(WORDS).hexdigest()
        assert NAME in checkpoint.reader.for_inference()
        assert ("ok", "generation 1") in {
            (file.status, file.where) for file in checkpoint.verify().files if file.name == NAME
        }

    def test_damage_names_the_file_and_the_chunk(self, carrying):
        (held,) = (carrying / ".ckptstore" / "00000001").glob("tokenizer.*.words")
        held.chmod(0o644)
        held.write_bytes(b"a\nan\ntoo\n")
        checkpoint = ckptstore.open(carrying)  # nothing of it is read before it is needed

        with pytest.raises(CorruptionError, match=r"tokenizer\.words .* damaged: chunk 0 is"):
            checkpoint.load_tokenizer()

        assert not checkpoint.verify().sound

    def test_a_strangers_files_are_the_kinds_to_refuse(self, tmp_path):
        ckptstore.save(
            tmp_path / "a", model=WEIGHTS, tokenizer=STATE, vocabulary={NAME: b"other\nwords\n"}
        )

        with pytest.raises(CorruptionError, match="these are other words"):
            ckptstore.open(tmp_path / "a").load_tokenizer()

    def test_files_that_are_absent_are_taken_from_the_machine(self, carrying, tmp_path):
        for name in ("model.pt", "tokenizer.json", "manifest.json"):
            (tmp_path / "copy").mkdir(exist_ok=True)
            shutil.copy(carrying / name, tmp_path / "copy")

        assert encoded(tmp_path / "copy") == [2, 0, 1]

    def test_a_plain_folder_carries_them_too(self, carrying, tmp_path, words):
        (tmp_path / "copy").mkdir()
        for name in ("model.pt", "tokenizer.json", NAME):
            shutil.copy(carrying / name, tmp_path / "copy")
        words.unlink()

        assert encoded(tmp_path / "copy") == [2, 0, 1]
        assert not ckptstore.open(tmp_path / "copy").proved

    def test_a_link_that_leads_out_of_a_plain_folder_is_not_followed(
        self, carrying, tmp_path, words
    ):
        (tmp_path / "copy").mkdir()
        for name in ("model.pt", "tokenizer.json"):
            shutil.copy(carrying / name, tmp_path / "copy")
        os.symlink(words, tmp_path / "copy" / NAME)

        assert dict(ckptstore.open(tmp_path / "copy").tokenizer_files()) == {}

    @pytest.mark.parametrize(
        ("state", "kept"),
        [
            (STATE, [NAME]),
            ({"token_kind": "char", "chars": ["a"]}, []),
            ({"version": "1.0"}, []),  # another library's tokenizer.json
            ({"token_kind": "klingon"}, ["tokenizer.py", NAME]),
        ],
    )
    def test_what_lies_beside_in_a_plain_folder_is_the_tokenizers_if_its_kind_says_so(
        self, tmp_path, state, kept
    ):
        plain = tmp_path / "plain"
        plain.mkdir()
        torch.save(WEIGHTS, plain / "model.pt")
        (plain / "tokenizer.json").write_text(json.dumps(state))
        (plain / "tokenizer.py").write_text("mine")
        (plain / NAME).write_bytes(WORDS)

        assert sorted(ckptstore.open(plain).tokenizer_files()) == kept
        if "token_kind" in state:
            done = ckptstore.sync(plain, tmp_path / "copy", optimizer=False)
            assert sorted({"tokenizer.py", NAME} & {*done.copied}) == kept

    def test_a_huge_file_in_a_plain_folder_is_somebody_elses(self, carrying, tmp_path):
        (tmp_path / "copy").mkdir()
        for name in ("model.pt", "tokenizer.json"):
            shutil.copy(carrying / name, tmp_path / "copy")
        with (tmp_path / "copy" / "tokenizer.corpus").open("wb") as file:
            file.truncate(2**30)

        assert dict(ckptstore.open(tmp_path / "copy").tokenizer_files()) == {}
        assert encoded(tmp_path / "copy") == [2, 0, 1]
        assert "tokenizer.corpus" not in ckptstore.sync(tmp_path / "copy", tmp_path / "b").copied

    def test_a_manifest_that_lists_too_much_is_damage(self, tmp_path, monkeypatch):
        from ckptstore.tokenizers import files

        half = bytes(33 * 2**20)
        with monkeypatch.context() as patch:
            patch.setattr(files, "MOST_BYTES", 2**40)
            ckptstore.save(
                tmp_path / "a",
                model=WEIGHTS,
                tokenizer=STATE,
                vocabulary={NAME: half, "tokenizer.more": half},
            )

        carried = ckptstore.open(tmp_path / "a").tokenizer_files()
        with pytest.raises(
            CorruptionError, match=r"tokenizer\.more, tokenizer\.words\) are larger"
        ):
            carried[NAME]

    def test_one_that_a_person_replaced_in_the_view_is_told_and_put_back(self, carrying):
        (carrying / NAME).unlink()
        (carrying / NAME).write_bytes(b"mine\n")

        with pytest.raises(ConflictError, match=r"tokenizer\.words .* replaced by hand"):
            ckptstore.open(carrying)
        ckptstore.Store(carrying).repair(restore=True)

        assert (carrying / NAME).read_bytes() == WORDS
        assert encoded(carrying) == [2, 0, 1]

    def test_they_go_from_the_view_with_the_next_save_that_carries_none(self, carrying):
        ckptstore.save(carrying, model=WEIGHTS, tokenizer=STATE, step=6)

        assert not (carrying / NAME).exists()
        assert [*(carrying / ".ckptstore").rglob("tokenizer.*.words")] == []

    def test_inspect_lists_them_and_reads_nothing_of_them(self, carrying):
        (held,) = (carrying / ".ckptstore" / "00000001").glob("tokenizer.*.words")
        held.unlink()

        done = CliRunner().invoke(main, ["inspect", str(carrying)])

        assert done.exit_code == 0, done.output
        assert NAME in done.stdout


class TestSync:
    def test_a_copy_for_inference_gets_them_from_the_machine(self, bare, tmp_path, words):
        done = ckptstore.sync(bare, tmp_path / "copy", optimizer=False)
        words.unlink()

        assert NAME in done.copied
        assert done.copied_bytes > len(WORDS)
        assert encoded(tmp_path / "copy") == [2, 0, 1]
        assert ckptstore.open(tmp_path / "copy").verify().sound

    def test_a_whole_copy_is_what_its_source_is(self, bare, carrying, tmp_path):
        ckptstore.sync(bare, tmp_path / "one")
        ckptstore.sync(carrying, tmp_path / "two")

        assert NAME not in ckptstore.open(tmp_path / "one").files()
        assert NAME in ckptstore.open(tmp_path / "two").files()

    def test_a_copy_carries_what_it_is_asked_to(self, bare, carrying, tmp_path, words):
        ckptstore.sync(bare, tmp_path / "with", vocabulary=True)
        ckptstore.sync(carrying, tmp_path / "without", vocabulary=False)
        ckptstore.sync(bare, tmp_path / "small", optimizer=False, vocabulary=False)

        assert NAME in ckptstore.open(tmp_path / "with").files()
        assert "optimizer.pt" in ckptstore.open(tmp_path / "with").files()
        assert NAME not in ckptstore.open(tmp_path / "without").files()
        assert NAME not in ckptstore.open(tmp_path / "small").files()

    @pytest.mark.parametrize("optimizer", [False, True])
    def test_twice_is_a_no_op(self, location, bare, optimizer):
        url, options = location
        asked = {"optimizer": optimizer, "vocabulary": True, "storage_options": options}
        ckptstore.sync(bare, url, **asked)

        again = ckptstore.sync(bare, url, **asked)

        assert not again.changed
        assert again.copied == ()
        assert NAME in again.spared
        assert ckptstore.open(url, storage_options=options).generation == 1
        assert ckptstore.open(url, storage_options=options).tokenizer_files()[NAME] == WORDS

    def test_twice_is_a_no_op_too_where_the_second_machine_lacks_them(self, bare, tmp_path, words):
        ckptstore.sync(bare, tmp_path / "copy", optimizer=False)
        words.unlink()

        assert not ckptstore.sync(bare, tmp_path / "copy", optimizer=False).changed
        assert not ckptstore.sync(bare, tmp_path / "copy", optimizer=False, vocabulary=True).changed

    def test_a_newer_state_keeps_what_an_older_copy_has(self, bare, tmp_path, words):
        ckptstore.sync(bare, tmp_path / "copy", optimizer=False)
        words.unlink()
        ckptstore.save(bare, model={"w": torch.zeros(3)}, tokenizer=STATE, step=6)

        done = ckptstore.sync(bare, tmp_path / "copy", optimizer=False)

        assert (done.step, NAME in done.spared) == (6, True)
        assert encoded(tmp_path / "copy") == [2, 0, 1]

    @pytest.mark.parametrize(
        "state", [{"token_kind": "char", "chars": ["a"]}, {**STATE, "list": "german"}]
    )
    def test_another_vocabulary_keeps_nothing_of_an_older_copy(self, bare, tmp_path, words, state):
        ckptstore.sync(bare, tmp_path / "copy", optimizer=False)
        words.unlink()
        ckptstore.save(bare, model=WEIGHTS, tokenizer=state)

        ckptstore.sync(bare, tmp_path / "copy", optimizer=False)

        assert NAME not in ckptstore.open(tmp_path / "copy").files()

    def test_files_are_not_added_to_a_vocabulary_that_is_another(self, tmp_path, bare, monkeypatch):
        kind = plugins.tokenizer_kind("words")
        monkeypatch.setattr(kind, "fingerprint_of", classmethod(lambda cls, state: "sha256:other"))

        ckptstore.sync(bare, tmp_path / "copy", optimizer=False)

        assert NAME not in ckptstore.open(tmp_path / "copy").files()

    def test_what_nobody_has_is_named_only_where_it_is_asked_for(self, bare, tmp_path, words):
        words.unlink()

        ckptstore.sync(bare, tmp_path / "copy", optimizer=False)
        with pytest.raises(UnsupportedError, match=r"'words' needs tokenizer\.words"):
            ckptstore.sync(bare, tmp_path / "other", optimizer=False, vocabulary=True)

        assert NAME not in ckptstore.open(tmp_path / "copy").files()
        assert not (tmp_path / "other").exists()

    def test_a_kind_that_fails_stops_no_copy_that_did_not_ask(self, bare, tmp_path, monkeypatch):
        def broken(cls, state):
            raise RuntimeError("no")

        monkeypatch.setattr(plugins.tokenizer_kind("words"), "files_of", classmethod(broken))

        assert ckptstore.sync(bare, tmp_path / "copy", optimizer=False).changed
        with pytest.raises(ckptstore.PluginError, match="'words' .* failed"):
            ckptstore.sync(bare, tmp_path / "other", vocabulary=True)

    @pytest.mark.parametrize(
        "state", [{"token_kind": "gpt2", "chars": ["a"]}, {"version": "1.0"}, {"token_kind": "k"}]
    )
    def test_a_state_that_nobody_can_read_is_copied_with_its_files(self, tmp_path, state):
        source, files = tmp_path / "source", {"tokenizer.model": b"something"}
        ckptstore.save(source, model=WEIGHTS, tokenizer=STATE, vocabulary=files)
        (source / "tokenizer.json").write_text(json.dumps(state))  # by hand

        done = ckptstore.sync(source, tmp_path / "copy", optimizer=False)
        ckptstore.convert(source, tmp_path / "converted", optimizer=False)
        left = ckptstore.convert(tmp_path / "copy", tmp_path / "old.pt", "legacy")

        assert "tokenizer.model" in done.copied
        assert not ckptstore.sync(source, tmp_path / "copy", optimizer=False).changed
        assert (tmp_path / "converted" / "tokenizer.model").read_bytes() == b"something"
        assert "tokenizer.model" in (left.left_out or ())

    def test_the_steps_of_a_history_get_them(self, tmp_path, words):
        with ckptstore.Store(tmp_path / "run", keep=ckptstore.Keep()) as store:
            for step in (1, 2):
                store.save(model={"w": torch.full((2,), float(step))}, tokenizer=STATE, step=step)

        first = list(ckptstore.sync_steps(tmp_path / "run", tmp_path / "copy", optimizer=False))
        again = list(ckptstore.sync_steps(tmp_path / "run", tmp_path / "copy", optimizer=False))
        words.unlink()

        assert [done.changed for done in (*first, *again)] == [True, True, False, False]
        for step in (1, 2):
            opened = ckptstore.open(tmp_path / "copy", step=step)
            assert opened.load_tokenizer().encode("an") == [1]

    @pytest.mark.parametrize("history", [False, True])
    def test_a_copy_that_died_half_way_goes_on_and_leaves_nothing_beside(
        self, bare, tmp_path, words, monkeypatch, history
    ):
        monkeypatch.setattr(sending, "_WORTH_A_NOTE", 1)  # as if it were large
        source, copy = bare, tmp_path / "copy"
        if history:
            with ckptstore.Store(tmp_path / "run", keep=ckptstore.Keep()) as store:
                store.save(model=WEIGHTS, tokenizer=STATE, step=5)
            source = tmp_path / "run"

        def again() -> ckptstore.Transfer:
            if history:
                (done,) = ckptstore.sync_steps(source, copy, optimizer=False)
                return done
            return ckptstore.sync(source, copy, optimizer=False)

        with pytest.raises(Killed), inject(Crash(asked("create", "manifest.json"))):
            again()
        assert again().changed
        assert not again().changed

        words.unlink()
        checkpoint = ckptstore.open(copy)
        assert checkpoint.load_tokenizer().encode("the") == [2]
        folder = copy / ("step-00000005" if history else ".ckptstore/00000001")
        manifest = checkpoint.source.manifest
        assert manifest is not None
        assert sorted(os.listdir(folder)) == sorted([*manifest.paths(), "manifest.json"])

    def test_a_step_that_is_there_is_left_as_it_is_whatever_came_to_the_machine_since(
        self, tmp_path, words
    ):
        with ckptstore.Store(tmp_path / "run", keep=ckptstore.Keep()) as store:
            store.save(model=WEIGHTS, tokenizer=STATE, step=1)

        def copied(to: str, **options: bool | None) -> bool:
            (done,) = ckptstore.sync_steps(tmp_path / "run", tmp_path / to, **options)
            return done.changed

        words.unlink()
        assert copied("without", optimizer=False)
        words.write_bytes(WORDS)
        assert not copied("without", optimizer=False)
        assert copied("with", vocabulary=True)
        assert not copied("with")
        words.unlink()
        assert not copied("with")
        assert not copied("with", vocabulary=True)
        with pytest.raises(ConflictError, match="step 1 is in .* already, with other content"):
            copied("with", vocabulary=False)

    def test_a_single_copy_gets_what_came_to_the_machine_since(self, bare, tmp_path, words):
        words.unlink()
        ckptstore.sync(bare, tmp_path / "copy", optimizer=False)
        words.write_bytes(WORDS)

        done = ckptstore.sync(bare, tmp_path / "copy", optimizer=False)

        assert (NAME in done.copied, done.spared) == (True, ("model.pt",))
        assert not ckptstore.sync(bare, tmp_path / "copy", optimizer=False).changed

    def test_a_dry_run_says_what_would_be_added(self, bare, tmp_path):
        done = ckptstore.sync(bare, tmp_path / "copy", optimizer=False, dry_run=True)

        assert NAME in done.copied
        assert not (tmp_path / "copy").exists()

    def test_a_plain_folder_and_a_folder_that_has_the_name_are_sources_and_destinations(
        self, bare, tmp_path, words
    ):
        plain = tmp_path / "plain"
        plain.mkdir()
        for name in ("model.pt", "tokenizer.json"):
            shutil.copy(bare / name, plain)
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / NAME).write_bytes(b"an older list")

        ckptstore.sync(plain, tmp_path / "copy", optimizer=False)

        assert (tmp_path / "copy" / NAME).read_bytes() == WORDS
        assert not ckptstore.sync(plain, tmp_path / "copy", optimizer=False).changed

    def test_a_source_cannot_name_a_persons_file(self, tmp_path):
        hostile = {NAME: WORDS, "tokenizer.py": b"print()"}
        ckptstore.save(tmp_path / "a", model=WEIGHTS, tokenizer=STATE, vocabulary=hostile)
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "tokenizer.py").write_text("mine")

        with pytest.raises(ConflictError, match=r"has a file 'tokenizer\.py' that is no checkp"):
            ckptstore.sync(tmp_path / "a", tmp_path / "copy", optimizer=False)

        assert (tmp_path / "copy" / "tokenizer.py").read_text() == "mine"


class TestConvert:
    def test_a_conversion_for_inference_gets_them_and_a_whole_one_is_its_source(
        self, bare, tmp_path, words
    ):
        ckptstore.convert(bare, tmp_path / "old.pt", "legacy")

        whole = ckptstore.convert(tmp_path / "old.pt", tmp_path / "whole")
        small = ckptstore.convert(tmp_path / "old.pt", tmp_path / "small", optimizer=False)
        again = ckptstore.convert(tmp_path / "old.pt", tmp_path / "small", optimizer=False)
        words.unlink()
        elsewhere = ckptstore.convert(tmp_path / "old.pt", tmp_path / "small", optimizer=False)

        assert NAME not in whole.copied
        assert NAME in small.copied
        assert not again.changed
        assert not elsewhere.changed
        assert encoded(tmp_path / "small") == [2, 0, 1]

    def test_a_conversion_that_is_there_is_left_as_it_is_unless_it_is_said(
        self, bare, tmp_path, words
    ):
        old, copy = tmp_path / "old.pt", tmp_path / "copy"
        ckptstore.convert(bare, old, "legacy")
        words.unlink()
        ckptstore.convert(old, copy, optimizer=False)
        words.write_bytes(WORDS)

        assert not ckptstore.convert(old, copy, optimizer=False).changed
        with pytest.raises(ConflictError, match="holds another checkpoint already"):
            ckptstore.convert(old, copy, optimizer=False, vocabulary=True)
        added = ckptstore.convert(old, copy, optimizer=False, overwrite=True)
        assert added.changed
        assert NAME in ckptstore.open(copy).files()
        words.unlink()
        assert not ckptstore.convert(old, copy, optimizer=False).changed

    def test_a_bundle_keeps_them_and_can_get_or_lose_them_where_it_is(self, bare, tmp_path):
        assert not ckptstore.convert(bare).changed
        added = ckptstore.convert(bare, vocabulary=True, overwrite=True)
        kept = ckptstore.convert(bare, tmp_path / "kept")
        again = ckptstore.convert(bare, vocabulary=True)
        left = ckptstore.convert(bare, tmp_path / "left", vocabulary=False)

        assert added.changed
        assert (NAME in kept.copied, NAME in left.copied) == (True, False)
        assert not again.changed

    def test_a_format_without_room_is_refused_where_they_are_asked_for(self, bare, tmp_path):
        with pytest.raises(UnsupportedError, match=r"'legacy' has no room for tokenizer\.words"):
            ckptstore.convert(bare, tmp_path / "old.pt", "legacy", vocabulary=True)

        assert not (tmp_path / "old.pt").exists()

    def test_what_went_is_named_only_where_it_cannot_be_had_again(self, carrying, tmp_path, words):
        here = ckptstore.convert(carrying, tmp_path / "here.pt", "legacy")
        words.unlink()
        elsewhere = ckptstore.convert(carrying, tmp_path / "elsewhere.pt", "legacy")

        assert NAME not in (here.left_out or ())
        assert NAME in (elsewhere.left_out or ())


def test_the_bundles_of_older_releases_carry_nothing():
    golden = Path(__file__).parents[1] / "guarantees" / "format_1" / "single"

    assert dict(ckptstore.open(golden).tokenizer_files()) == {}


def test_a_checkpoint_without_a_tokenizer_has_none_of_its_files(tmp_path):
    ckptstore.save(tmp_path / "a", model=WEIGHTS)

    assert dict(ckptstore.open(tmp_path / "a").tokenizer_files()) == {}
    assert ckptstore.sync(tmp_path / "a", tmp_path / "b", vocabulary=True).changed
    with pytest.raises(NotFoundError, match="has no tokenizer"):
        ckptstore.open(tmp_path / "b").load_tokenizer()
