"""docs/plugins.md, from an empty folder to packages that are installed, used and removed again.

The files are those of the document. They are built into wheels, and pip installs these into a
virtual environment of the test's own, which finds everything else, torch and ckptstore, where the
tests find it. What the real commands do there is recorded once; each test is a fact about it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.docs import tutorial

pytestmark = pytest.mark.slow

OFFLINE = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "-q")
PACKAGES = ("ckptstore-bytes", "ckptstore-json")
TINY = (
    "--n_embd 8 --n_head 1 --n_layer 1 --block_size 8 --batch_size 2 --max_iters 2 "
    "--eval_interval 1 --eval_iters 1 --seed 1"
)


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and a folder to work in."""

    python: Path
    folder: Path

    def run(self, command: str, *more: str) -> Done:
        """Run ``ckptstore``, ``gpt``, ``pip`` or ``pytest`` as the environment has them."""
        done = subprocess.run(
            [str(self.python), "-m", *command.split(), *more],
            cwd=self.folder,
            env={
                **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                "OMP_NUM_THREADS": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                # Not that of pip itself, whose copies of other packages are as old as it is.
                "PYTHONWARNINGS": "default" if command.startswith("pip") else "error",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=240,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def succeed(self, command: str, *more: str) -> str:
        """Run a command that has to succeed; return what it prints."""
        done = self.run(command, *more)
        assert done.code == 0, f"{command}\n{done.out}\n{done.err}"
        return done.out


@dataclass
class Story:
    """What was seen, by what was asked: while the packages were installed, and afterwards."""

    before: dict[str, Done] = field(default_factory=dict)
    after: dict[str, Done] = field(default_factory=dict)


def environment(folder: Path) -> Environment:
    """Make a virtual environment that sees what this one has, but the tutorial's packages."""
    venv.create(folder / "venv", with_pip=False, symlinks=os.name != "nt")
    (site,) = (folder / "venv").glob("**/site-packages")
    others = [path for path in map(Path, sys.path) if path.name.endswith("-packages")]
    lines = []
    for number, other in enumerate(others):
        seen = folder / f"seen-{number}"
        seen.mkdir()
        for path in other.iterdir() if other.is_dir() else ():
            if not is_of_the_tutorial(path.name):
                (seen / path.name).symlink_to(path)
        lines.append(f"import site; site.addsitedir({str(seen)!r})\n")
    # Where the tests run from a checkout that is not installed, it is found there, too.
    lines.append(f"{tutorial.ROOT}\n")
    (site / "seen.pth").write_text("".join(lines))
    bin_ = "Scripts" if os.name == "nt" else "bin"
    (folder / "work").mkdir()
    return Environment(folder / "venv" / bin_ / "python", folder / "work")


def is_of_the_tutorial(name: str) -> bool:
    """Whether a file of a site-packages folder was put there by one of the tutorial's packages."""
    plain = name.replace("-", "_").replace("__editable__.", "").lstrip("_")
    return plain.startswith(tuple(package.replace("-", "_") for package in PACKAGES))


BEFORE = {
    "plugins": "ckptstore plugins --json",
    "train": f"gpt train --model_name dante --tokenization bytes {TINY}",
    "inspect": "ckptstore inspect checkpoints/dante --json",
    "convert all": "ckptstore convert checkpoints/dante whole --to json",
    "convert": "ckptstore convert checkpoints/dante readable --to json --no-optimizer",
    "inspect readable": "ckptstore inspect readable --json",
    "verify readable": "ckptstore verify readable --json",
    "generate": "gpt generate --model_name dante --max_new_tokens 9 --seed 1",
    "generate readable": "gpt generate --model_name readable --base_dir . "
    "--max_new_tokens 9 --seed 1",
    "convert back": "ckptstore convert readable back",
    "diff": "ckptstore diff checkpoints/dante back --json",
}
AFTER = {
    "plugins": "ckptstore plugins --json",
    "train char": f"gpt train --model_name virgil --tokenization char {TINY}",
    "train bytes": f"gpt train --model_name beatrice --tokenization bytes {TINY}",
    "inspect": "ckptstore inspect checkpoints/dante --json",
    "verify": "ckptstore verify checkpoints/dante --json",
    "convert": "ckptstore convert checkpoints/dante dante.pt --to legacy",
    "sync": "ckptstore sync checkpoints/dante copied",
    "generate": "gpt generate --model_name dante --max_new_tokens 9",
    "inspect readable": "ckptstore inspect readable",
    "inspect plain": "ckptstore inspect plain",
    "convert readable": "ckptstore convert readable other",
    "convert to json": "ckptstore convert checkpoints/dante more --to json",
    "ls": "ckptstore ls --json .",
}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    place = environment(tmp_path_factory.mktemp("tutorial"))
    found = Story()
    packages = tutorial.write(place.folder)
    assert [package.name for package in packages] == list(PACKAGES)
    for package in packages:
        place.succeed("pip wheel", *OFFLINE, "--wheel-dir", "dist", f"./{package.name}")
    wheels = sorted(str(path) for path in (place.folder / "dist").iterdir())
    place.succeed("pip install", *OFFLINE, *wheels)
    for package in packages:
        tests = f"{package.name}/tests"
        found.before[package.name] = place.run(
            f"pytest -q -p no:cacheprovider --import-mode=importlib --rootdir {tests} {tests}"
        )
    for name, command in BEFORE.items():
        found.before[name] = place.run(command)
    (place.folder / "plain").mkdir()
    text = (place.folder / "readable" / "weights.json").read_bytes()
    (place.folder / "plain" / "weights.json").write_bytes(text)
    found.before["inspect plain"] = place.run("ckptstore inspect plain --json")
    place.succeed("pip uninstall -y -q --disable-pip-version-check", *PACKAGES)
    for name, command in AFTER.items():
        found.after[name] = place.run(command)
    return found


def answer(done: Done) -> Any:
    """Return the JSON that a command printed."""
    assert done.code == 0, done.err
    return json.loads(done.out)


def error_of(done: Done) -> str:
    """Return the one line that a command failed with."""
    assert done.code != 0, done.out
    assert "Traceback" not in done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")


def packages_of(done: Done) -> dict[str, Any]:
    return {plugin["distribution"]: plugin for plugin in answer(done)}


# -- while they are installed -------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_pass_their_tests_where_they_are_installed(story: Story, package: str) -> None:
    done = story.before[package]

    assert done.code == 0, done.out
    assert re.search(r"^\d\d passed in", done.out, re.MULTILINE)


def test_both_are_listed_with_what_they_add(story: Story) -> None:
    listed = packages_of(story.before["plugins"])

    kind, format = (listed[package] for package in PACKAGES)
    assert (kind["version"], kind["status"], kind["error"]) == ("0.1.0", "active", None)
    assert (kind["tokenizers"], kind["formats"]) == (["bytes"], [])
    assert (format["version"], format["status"], format["error"]) == ("0.1.0", "active", None)
    assert (format["formats"], format["writable"]) == (["json"], ["json"])


def test_a_model_is_trained_with_the_kind(story: Story) -> None:
    assert story.before["train"].code == 0, story.before["train"].err
    assert "bytes tokenizer" in story.before["train"].out
    told = answer(story.before["inspect"])
    assert (told["format"], told["step"]) == ("bundle", 2)
    assert told["tokenizer"] == {"token_kind": "bytes"}
    assert told["config"]["vocab_size"] == 256


def test_what_the_format_has_no_room_for_is_refused(story: Story) -> None:
    assert story.before["convert all"].code == 1
    assert error_of(story.before["convert all"]) == (
        "the format 'json' is for inference alone; use --no-optimizer"
    )


def test_the_model_is_converted_to_the_format_and_back(story: Story) -> None:
    assert story.before["convert"].code == 0, story.before["convert"].err
    assert "19 tensors proved the same" in story.before["convert"].out
    told = answer(story.before["inspect readable"])
    assert (told["format"], told["tokenizer"]) == ("json", {"token_kind": "bytes"})
    assert list(told["files"]) == ["weights.json"]
    assert answer(story.before["verify readable"])["sound"] is True
    assert story.before["convert back"].code == 0, story.before["convert back"].err
    parts = json.loads(story.before["diff"].out)["tensors"]
    assert (parts["model"]["alike"], parts["model"]["changed"]) == (19, [])


def test_it_writes_the_same_text_from_either_format(story: Story) -> None:
    assert story.before["generate"].code == 0, story.before["generate"].err
    assert len(story.before["generate"].out) > 5
    assert story.before["generate readable"].out == story.before["generate"].out


def test_its_files_are_known_without_a_manifest_too(story: Story) -> None:
    told = answer(story.before["inspect plain"])

    assert (told["format"], told["proved"]) == ("json", False)


# -- after they are gone ------------------------------------------------------------------


def test_they_are_gone(story: Story) -> None:
    assert set(packages_of(story.after["plugins"])) & set(PACKAGES) == set()


def test_what_needs_neither_goes_on(story: Story) -> None:
    assert story.after["train char"].code == 0, story.after["train char"].err


def test_the_checkpoint_of_the_missing_kind_opens_verifies_and_moves(story: Story) -> None:
    told = answer(story.after["inspect"])
    assert told["tokenizer"] == {"token_kind": "bytes"}
    assert answer(story.after["verify"])["sound"] is True
    for command in ("convert", "sync"):
        assert story.after[command].code == 0, story.after[command].err


@pytest.mark.parametrize("command", ["generate", "train bytes"])
def test_what_needs_the_kind_says_which_is_missing(story: Story, command: str) -> None:
    assert story.after[command].code == 1
    assert story.after[command].out == ""
    assert re.fullmatch(
        r"the tokenizer kind 'bytes' is not installed; installed: .*'char', .*'gpt2'.*; "
        "install the plugin that provides it",
        error_of(story.after[command]),
    )


@pytest.mark.parametrize("command", ["inspect readable", "convert readable"])
def test_what_needs_the_format_says_where_and_which_is_missing(story: Story, command: str) -> None:
    assert story.after[command].code == 1
    assert re.fullmatch(
        "readable cannot be opened: the format 'json' is not installed; "
        "installed: .*'bundle', .*'legacy'.*; install the plugin that provides it",
        error_of(story.after[command]),
    )


def test_files_of_the_missing_format_without_a_manifest_match_nothing(story: Story) -> None:
    assert story.after["inspect plain"].code == 3
    assert re.fullmatch(
        "no checkpoint in plain: it holds weights.json, and no model.pt; "
        r"of the formats that are installed \(bundle, legacy.*\) none matches",
        error_of(story.after["inspect plain"]),
    )


def test_nothing_is_converted_to_the_missing_format(story: Story) -> None:
    assert story.after["convert to json"].code == 1
    assert error_of(story.after["convert to json"]).startswith("the format 'json' is not installed")


def test_a_listing_has_all_that_it_can_tell(story: Story) -> None:
    rows = {row["location"].removeprefix("./"): row for row in json.loads(story.after["ls"].out)}

    assert {"back", "copied", "readable"} <= set(rows)
    assert "the format 'json' is not installed" in str(rows["readable"])
