"""The kits find faults: each one planted fails the test that is there for it.

And no test of a kit is there for nothing: each is failed by a planted fault, and by no class that
has none.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ckptstore.testing import FormatTests, TokenizerTests

DOCS = Path(__file__).parents[2] / "docs" / "plugins.md"
PLANTED = Path(__file__).parent / "planted"


def prepare(folder: Path, which: str) -> None:
    """Put planted classes into a folder, as a test module, beside the plugin that has them."""
    shutil.copy(PLANTED / f"{which}.py", folder / "test_planted.py")
    shutil.copy(PLANTED / "planted_plugin.py", folder)
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.M | re.S)
    (source,) = (block for block in blocks if "class JsonFormat(" in block)
    (folder / "ckptstore_json.py").write_text(source, "utf-8")
    info = folder / "planted-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ckptstore]\nplanted = planted_plugin\n")


@dataclass(frozen=True)
class Outcomes:
    """What a kit makes of all planted classes.

    Attributes:
        failed: ``Class::test`` of what failed.
        errors: of what had no class or no files to be run with.
        out: what pytest says.
    """

    failed: frozenset[str]
    errors: frozenset[str]
    out: str

    def said(self, test: str) -> str:
        """Return what is said about one test that failed, or could not be run."""
        title = re.escape(test.replace("::", "."))
        found = re.search(rf"^_+ .*\b{title} _+$(.*?)^(?:_|=)", self.out, re.M | re.S)
        assert found is not None, test
        return found[1]


def outcomes(folder: Path, which: str) -> Outcomes:
    """Run a kit on all planted classes, in one process."""
    prepare(folder, which)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("--tb=short", "-rfE", "."),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    line = r"^{} test_planted\.py::(\w+::\w+)"
    failed, errors = (
        frozenset(re.findall(line.format(word), result.stdout, re.M))
        for word in ("FAILED", "ERROR")
    )
    return Outcomes(failed, errors, result.stdout)


@pytest.fixture(scope="module")
def tokenizer_outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return outcomes(tmp_path_factory.mktemp("tokenizers"), "tokenizers")


@pytest.fixture(scope="module")
def format_outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return outcomes(tmp_path_factory.mktemp("formats"), "formats")


def promises_of(kit: type) -> set[str]:
    return {name for name in dir(kit) if name.startswith("test_")}


def check_each_can_fail(kit: type, found: Outcomes) -> None:
    failed = {name.partition("::")[2] for name in found.failed}
    assert promises_of(kit) - failed == set(), "nothing planted fails these"
    honest = {name for name in found.failed | found.errors if name.startswith("TestHonest::")}
    assert honest == set(), "these are failed by a class that keeps every promise"


def test_every_test_for_tokenizers_can_fail(tokenizer_outcomes: Outcomes) -> None:
    check_each_can_fail(TokenizerTests, tokenizer_outcomes)


def test_every_test_for_formats_can_fail(format_outcomes: Outcomes) -> None:
    check_each_can_fail(FormatTests, format_outcomes)


@pytest.mark.parametrize(
    "expected",
    [
        "TestAscii::test_the_training_text_comes_back",
        "TestAscii::test_each_character_of_the_training_text_comes_back",
        "TestNormal::test_the_training_text_comes_back",
        "TestNormal::test_random_text_comes_back_or_is_refused",
        "TestStarts::test_no_text_is_no_ids",
        "TestGaps::test_every_id_has_a_text",
        "TestFloats::test_ids_are_plain_ints_in_range",
        "TestWraps::test_an_id_outside_the_vocabulary_is_refused",
        "TestHalves::test_any_ids_decode_to_text_that_can_be_written",
        "TestDrops::test_text_that_is_not_covered_says_what",
        "TestDrops::test_random_text_comes_back_or_is_refused",
        "TestUtf8::test_half_a_surrogate_pair_comes_back_or_is_refused",
        "TestDrops::test_half_a_surrogate_pair_comes_back_or_is_refused",
        "TestNoJson::test_the_state_is_a_json_object_of_this_kind",
        "TestShares::test_the_state_is_a_copy",
        "TestTrusting::test_a_state_of_another_kind_is_refused",
        "TestTrusting::test_a_malformed_state_raises_nothing_but_our_errors",
        "TestForgets::test_the_state_makes_the_same_tokenizer",
        "TestForgets::test_it_is_saved_and_loaded_with_a_checkpoint",
        "TestShuffles::test_the_same_text_makes_the_same_tokenizer",
        "TestUnordered::test_another_process_makes_the_same_of_the_same_text",
        "TestUnkept::test_its_files_are_those_that_its_state_names",
        "TestHollow::test_its_files_make_the_same_tokenizer",
        "TestBeside::test_files_of_a_stranger_make_the_same_tokenizer_or_none",
        "TestAlike::test_other_vocabularies_have_other_fingerprints",
        "TestAlike::test_a_checkpoint_with_another_vocabulary_is_refused",
        "TestOther::test_the_state_has_the_fingerprint_of_its_tokenizer",
        "TestChatty::test_the_description_is_one_line",
        "TestGrows::test_encoding_changes_nothing",
        "TestBusy::test_threads_do_not_disturb_each_other",
        "TestUnsaid::test_an_option_that_is_not_given_has_its_default",
        "TestUnknown::test_the_kind_is_found",
    ],
)
def test_a_faulty_tokenizer_is_caught(tokenizer_outcomes: Outcomes, expected: str) -> None:
    assert expected in tokenizer_outcomes.failed


@pytest.mark.parametrize(
    "expected",
    [
        "TestUnsafe::test_nothing_in_a_file_is_run",
        "TestRestless::test_equal_states_are_written_as_equal_bytes",
        "TestGreedy::test_nothing_else_matches",
        "TestClaiming::test_no_other_formats_files_are_claimed",
        "TestShy::test_its_own_files_match",
        "TestShy::test_a_bundle_is_made_of_it",
        "TestPeeks::test_looking_at_damaged_files_raises_nothing_but_our_errors",
        "TestCareless::test_damage_is_an_error_or_changes_nothing",
        "TestCareless::test_bombs_raise_nothing_but_our_errors",
        "TestUntyped::test_bombs_raise_nothing_but_our_errors",
        "TestHungry::test_what_is_listed_reads_no_weights",
        "TestHungry::test_named_tensors_are_read_without_the_others",
        "TestHides::test_a_read_that_fails_is_the_storages_error",
        "TestFollows::test_names_that_lead_outside_are_not_followed",
        "TestLossy::test_what_was_written_is_read",
        "TestLossy::test_a_bundle_comes_back_from_it",
        "TestQuiet::test_what_has_no_room_is_refused_or_named",
        "TestNeeds::test_weights_alone_are_a_checkpoint",
        "TestSwallows::test_a_write_that_fails_is_not_taken_for_done",
        "TestRemembers::test_a_save_that_is_killed_leaves_the_old_state_or_the_new",
        "TestTalkative::test_a_format_of_one_file_writes_that_file_alone",
        "TestTalkative::test_all_that_it_writes_is_named",
        "TestFixed::test_the_one_file_is_read_under_any_name",
        "TestReadOnly::test_a_format_that_only_reads_says_so",
        "TestMislists::test_tensors_are_listed_as_they_load",
        "TestWholesale::test_named_tensors_are_read_alone",
        "TestInvents::test_each_tensor_is_read_alone",
        "TestInvents::test_what_was_measured_is_read_or_left_out",
        "TestInvents::test_files_of_a_tokenizer_come_back_or_are_left_out",
        "TestBoasts::test_its_parts_agree",
        "TestBelated::test_what_is_read_later_is_what_loads",
        "TestUnable::test_what_is_read_later_is_written_as_what_is_loaded",
        "TestTwice::test_its_files_suffice",
        "TestElsewhere::test_its_files_are_named",
        "TestElsewhere::test_what_inference_needs_suffices",
        "TestUnknown::test_the_format_is_found",
    ],
)
def test_a_faulty_format_is_caught(format_outcomes: Outcomes, expected: str) -> None:
    assert expected in format_outcomes.failed


def test_a_format_that_says_what_it_leaves_out_is_no_fault(format_outcomes: Outcomes) -> None:
    sound = ("TestStepless::", "TestDropping::")
    assert not [name for name in format_outcomes.failed if name.startswith(sound)]


def test_a_format_that_has_no_sample_files_says_so(format_outcomes: Outcomes) -> None:
    assert "TestReadOnly::test_what_was_written_is_read" in format_outcomes.errors


def test_a_kind_that_cannot_be_pickled_is_no_fault(tokenizer_outcomes: Outcomes) -> None:
    assert not [name for name in tokenizer_outcomes.failed if name.startswith("TestLocked::")]


@pytest.mark.parametrize("kit", [TokenizerTests, FormatTests])
def test_a_class_that_is_not_named_is_an_error_in_every_test(
    kit: type, tokenizer_outcomes: Outcomes, format_outcomes: Outcomes
) -> None:
    found = tokenizer_outcomes if kit is TokenizerTests else format_outcomes
    errors = {name.partition("::")[2] for name in found.errors if "TestNothing::" in name}

    assert errors == promises_of(kit)


def test_a_fixture_that_is_not_overridden_says_so(
    tokenizer_outcomes: Outcomes, format_outcomes: Outcomes
) -> None:
    for found, test, fixture in (
        (tokenizer_outcomes, "test_no_text_is_no_ids", "tokenizer_class"),
        (format_outcomes, "test_the_format_is_found", "format_class"),
    ):
        said = f"TestNothing has to override the fixture {fixture}"
        assert said in found.said(f"TestNothing::{test}")


@pytest.mark.parametrize(
    ("test", "compared"),
    [
        (
            "TestFloats::test_ids_are_plain_ints_in_range",
            "assert {<class 'float'>} == {<class 'int'>}",
        ),
        ("TestGrows::test_encoding_changes_nothing", "At index 0 diff: "),
    ],
)
def test_a_failing_assertion_about_a_tokenizer_says_what_it_compared(
    tokenizer_outcomes: Outcomes, test: str, compared: str
) -> None:
    assert compared in tokenizer_outcomes.said(test)


@pytest.mark.parametrize(
    ("test", "compared"),
    [
        ("TestLossy::test_what_was_written_is_read", "the model is read as {'n': tensor(7.)"),
        ("TestElsewhere::test_all_that_it_writes_is_named", "Extra items in the left set"),
        (
            "TestFollows::test_names_that_lead_outside_are_not_followed",
            "index.json named '../x', and it was followed",
        ),
        (
            "TestRemembers::test_a_save_that_is_killed_leaves_the_old_state_or_the_new",
            "neither the old state nor the new one",
        ),
    ],
)
def test_a_failing_assertion_about_a_format_says_what_it_compared(
    format_outcomes: Outcomes, test: str, compared: str
) -> None:
    assert compared in format_outcomes.said(test)


def test_without_pytest_the_kits_say_what_is_missing() -> None:
    code = "import sys; sys.modules['pytest'] = None; import ckptstore.testing"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert result.stderr.endswith(
        "ModuleNotFoundError: ckptstore.testing needs pytest, which is not installed; "
        "run: pip install pytest\n"
    )
