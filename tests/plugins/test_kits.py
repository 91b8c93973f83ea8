"""The kits find faults: each one planted here fails the test that is there for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "plugins.md"

TOKENIZERS = """
import pytest
from ckptstore.testing import TokenizerTests
from ckptstore.tokenizers.char import CharTokenizer

def kit(cls):
    return type(f"Test{cls.__name__}", (TokenizerTests,),
                {"tokenizer_class": pytest.fixture(lambda self: cls)})

class Ascii(CharTokenizer):
    def encode(self, text):
        return super().encode(text.encode("ascii", "ignore").decode())

class Normal(CharTokenizer):
    def decode(self, ids):
        import unicodedata
        return unicodedata.normalize("NFKC", super().decode(ids))

class Gaps(CharTokenizer):
    n_vocab = property(lambda self: 2 * len(self._chars))
    encode = lambda self, text: [2 * i for i in super(Gaps, self).encode(text)]
    def decode(self, ids):
        if any(i % 2 for i in ids):
            raise ValueError("an odd id")
        return super().decode([i // 2 for i in ids])

class Floats(CharTokenizer):
    def encode(self, text):
        return [float(i) for i in super().encode(text)]

class Wraps(CharTokenizer):
    def decode(self, ids):
        return super().decode([i % self.n_vocab for i in ids])

class Drops(CharTokenizer):
    def encode(self, text):
        return super().encode("".join(c for c in text if c in self._ids))

class NoJson(CharTokenizer):
    def state(self):
        return {"token_kind": "char", "chars": tuple(self._chars)}

class Shares(CharTokenizer):
    def __init__(self, chars):
        super().__init__(chars)
        self._state = super().state()
    def state(self):
        return self._state

class Trusting(CharTokenizer):
    @classmethod
    def from_state(cls, state):
        return cls(state["chars"])

class Alike(CharTokenizer):
    fingerprint_of = classmethod(lambda cls, state: "sha256:1")

class Forgets(CharTokenizer):
    @classmethod
    def from_state(cls, state):
        return cls(sorted(super().from_state(state)._chars, reverse=True))

class Unsaid(CharTokenizer):
    @classmethod
    def from_text(cls, text, *, least: float = 1):  # 1.0 for whoever spells the default out
        return super().from_text(text + ("" if isinstance(least, int) else "\u2603"))

class TestNothing(TokenizerTests):
    pass
"""
TOKENIZERS += "\n".join(
    f"Test{name} = kit({name})" for name in re.findall(r"class (\w+)\(CharTok", TOKENIZERS)
)

FORMATS = """
import uuid
import pytest
import torch
from docs_format import FILE, JsonFormat, JsonReader
from ckptstore.formats.base import Contents
from ckptstore.testing import FormatTests

def kit(cls):
    example = lambda self: Contents(model={"w": torch.ones(2, 3), "n": torch.tensor(7)}, step=5)
    return type(f"Test{cls.__name__}", (FormatTests,),
                {"format_class": pytest.fixture(lambda self: cls),
                 "contents": pytest.fixture(example)})

class Unsafe(JsonFormat):
    def read(self, files):
        try:
            torch.load(files.open(FILE), weights_only=False)
        except Exception:
            pass
        return super().read(files)

class Restless(JsonFormat):
    def write(self, contents, files):
        super().write(contents, files)
        files.write_text("id.json", uuid.uuid4().hex)

class Greedy(JsonFormat):
    def matches(self, files):
        return True

class Claiming(JsonFormat):
    def matches(self, files):
        return any(name.endswith((".pt", ".json")) for name in files.names())

class Careless(JsonFormat):
    def read(self, files):
        import json
        json.loads(files.text(FILE))["model"]
        return super().read(files)

class Lossy(JsonFormat):
    def write(self, contents, files):
        model = {name: value.float() for name, value in contents.model.items()}
        super().write(Contents(model=model, step=contents.step), files)

class Swallows(JsonFormat):
    def write(self, contents, files):
        try:
            super().write(contents, files)
        except OSError:
            pass

class Talkative(JsonFormat):
    one_file = FILE
    def write(self, contents, files):
        super().write(contents, files)
        files.write_text("about.json", "{}")

class Fixed(JsonFormat):
    one_file = FILE

class ReadOnly(JsonFormat):
    writable = False
"""
FORMATS += "\n".join(
    f"Test{name} = kit({name})" for name in re.findall(r"class (\w+)\(JsonF", FORMATS)
)


def failures(folder: Path, source: str) -> set[str]:
    """Run the kits that a module holds; return ``Class::test`` of what failed."""
    (folder / "test_planted.py").write_text(source)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", "-rfE", "."],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    found = re.findall(r"^(?:FAILED|ERROR) test_planted\.py::(\w+::\w+)", result.stdout, re.M)
    return set(found)


@pytest.fixture(scope="module")
def tokenizer_failures(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    return failures(tmp_path_factory.mktemp("tokenizers"), TOKENIZERS)


@pytest.fixture(scope="module")
def format_failures(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("formats")
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.M | re.S)
    (source,) = (block for block in blocks if "class JsonFormat(" in block)
    (folder / "docs_format.py").write_text(source)
    return failures(folder, FORMATS)


@pytest.mark.parametrize(
    "expected",
    [
        "TestAscii::test_the_training_text_comes_back",
        "TestAscii::test_each_character_of_the_training_text_comes_back",
        "TestNormal::test_the_training_text_comes_back",
        "TestGaps::test_every_id_has_a_text",
        "TestFloats::test_ids_are_plain_ints_in_range",
        "TestWraps::test_an_id_outside_the_vocabulary_is_refused",
        "TestDrops::test_text_that_is_not_covered_says_what",
        "TestNoJson::test_the_state_is_a_json_object_of_this_kind",
        "TestShares::test_the_state_is_a_copy",
        "TestTrusting::test_a_state_of_another_kind_is_refused",
        "TestTrusting::test_a_malformed_state_raises_nothing_but_our_errors",
        "TestAlike::test_other_vocabularies_have_other_fingerprints",
        "TestForgets::test_the_state_makes_the_same_tokenizer",
        "TestForgets::test_the_kind_is_found",
        "TestUnsaid::test_an_option_that_is_not_given_has_its_default",
        "TestNothing::test_the_training_text_comes_back",
    ],
)
def test_a_faulty_tokenizer_is_caught(tokenizer_failures: set[str], expected: str) -> None:
    assert expected in tokenizer_failures


@pytest.mark.parametrize(
    "expected",
    [
        "TestUnsafe::test_nothing_in_a_file_is_run",
        "TestRestless::test_equal_states_are_written_as_equal_bytes",
        "TestGreedy::test_nothing_else_matches",
        "TestClaiming::test_no_other_formats_files_are_claimed",
        "TestCareless::test_damage_is_an_error_or_changes_nothing",
        "TestLossy::test_what_was_written_is_read",
        "TestSwallows::test_a_write_that_fails_is_not_taken_for_done",
        "TestTalkative::test_a_format_of_one_file_writes_that_file_alone",
        "TestFixed::test_the_one_file_is_read_under_any_name",
        "TestReadOnly::test_a_format_that_only_reads_says_so",
        "TestReadOnly::test_what_was_written_is_read",
    ],
)
def test_a_faulty_format_is_caught(format_failures: set[str], expected: str) -> None:
    assert expected in format_failures


def test_a_fixture_that_is_not_overridden_says_so(tmp_path: Path) -> None:
    (tmp_path / "test_empty.py").write_text(
        "from ckptstore.testing import FormatTests\nclass TestEmpty(FormatTests): pass\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "TestEmpty has to override the fixture format_class" in result.stdout
    assert " passed" not in result.stdout


def test_a_failing_assertion_of_a_kit_says_what_it_compared(tmp_path: Path) -> None:
    (tmp_path / "test_planted.py").write_text(TOKENIZERS)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k"),
            "TestFloats and plain_ints",
            ".",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "assert {<class 'float'>} == {<class 'int'>}" in result.stdout


def test_without_pytest_the_kits_say_what_is_missing() -> None:
    code = "import sys; sys.modules['pytest'] = None; import ckptstore.testing"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.endswith(
        "ModuleNotFoundError: ckptstore.testing needs pytest, which is not installed; "
        "run: pip install pytest\n"
    )
