"""``verify`` and ``plugins``: for people, and as JSON for programs."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
Shell = Callable[..., Any]


# -- verify -------------------------------------------------------------------------------


def test_verify_of_a_sound_checkpoint(run: Run, dante: Path) -> None:
    person = run("verify", dante)
    program = run("verify", dante, "--json")

    assert person.exit_code == program.exit_code == 0
    assert person.stdout.splitlines()[-1] == f"{dante}: sound, proved against its manifest"
    report = json.loads(program.stdout)
    assert (report["location"], report["sound"], report["proved"]) == (str(dante), True, True)
    assert {file["status"] for file in report["files"]} == {"ok"}
    assert list(report) == [
        "location",
        "sound",
        "proved",
        "view",
        "sample",
        "read",
        "size",
        "files",
    ]
    assert list(report["files"][0]) == ["name", "where", "status", "detail"]
    assert (report["view"], report["sample"], report["read"]) == ("ok", None, report["size"])
    assert {file["where"] for file in report["files"]} == {"generation 1", "view"}


def test_verify_of_a_damaged_checkpoint_names_the_file_and_exits_4(run: Run, dante: Path) -> None:
    (weights,) = (dante / ".ckptstore").glob("*/model*.pt")
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(bytes(data))

    person = run("verify", dante)
    program = run("verify", dante, "--json")

    assert person.exit_code == program.exit_code == 4
    assert person.stdout.splitlines()[-1] == f"{dante}: damaged"
    damaged = [file for file in json.loads(program.stdout)["files"] if file["status"] == "damaged"]
    assert [(file["where"], file["name"]) for file in damaged] == [("generation 1", "model.pt")]
    assert "chunk 0" in damaged[0]["detail"]


def test_verify_without_a_manifest_is_called_not_verified(
    run: Run, dante: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("model.pt", "config.json"):
        shutil.copy(dante / name, plain / name)

    result = run("verify", plain)

    assert result.exit_code == 0
    assert "not verified" in result.stdout.splitlines()[-1]
    assert json.loads(run("verify", plain, "--json").stdout)["proved"] is False


@pytest.mark.parametrize("columns", [80, 120])
def test_the_report_of_verify_fits_the_screen(run: Run, dante: Path, columns: int) -> None:
    text = run("verify", dante, env={"COLUMNS": str(columns)}).stdout

    *files, _ = text.splitlines()
    assert max(map(len, files)) <= columns
    names = [
        "model.pt",
        "config.json",
        "tokenizer.json",
        "training_state.json",
        "optimizer.pt",
        "manifest.json",
    ]
    rows = [line for line in files if not line.startswith("    ")]
    assert [row.split("  ")[1] for row in rows] == [*names, *(f"view: {name}" for name in names)]
    assert all("  ok" in row for row in rows)


# -- plugins ------------------------------------------------------------------------------


def test_plugins_lists_the_built_in_ones(run: Run) -> None:
    listed = json.loads(run("plugins", "--json").stdout)

    assert {format for plugin in listed for format in plugin["formats"]} >= {"bundle", "legacy"}
    assert {kind for plugin in listed for kind in plugin["tokenizers"]} >= {"gpt2", "char"}
    assert list(listed[0]) == [
        "name",
        "distribution",
        "version",
        "module",
        "formats",
        "writable",
        "tokenizers",
        "tokenizer_options",
        "status",
        "error",
        "off_by",
    ]
    assert listed[0]["version"] == importlib.metadata.version("ckptstore")
    text = run("plugins").stdout
    assert all(word in text for word in ("bundle", "legacy", "gpt2", "char", "active"))
    assert text.split()[:6] == ["plugin", "from", "reads", "writes", "tokenizers", "status"]


def test_plugins_lists_what_a_kind_can_be_told_in_training(shell: Shell, tmp_path: Path) -> None:
    info = tmp_path / "site" / "ckptstore_told-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ckptstore-told\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[ckptstore]\ntold = told_module\n")
    (tmp_path / "site" / "told_module.py").write_text(
        "from ckptstore import hookimpl\n"
        "from ckptstore.tokenizers.char import CharTokenizer\n"
        "class Told(CharTokenizer):\n"
        "    kind = 'told'\n"
        "    @classmethod\n"
        "    def from_text(cls, text, *, size: int = 300, lower: bool = False):\n"
        "        return super().from_text(text)\n"
        "@hookimpl\n"
        "def ckptstore_tokenizers():\n"
        "    return [Told]\n"
    )
    env = {"PYTHONPATH": str(tmp_path / "site")}

    listed = json.loads(shell("plugins", "--json", env=env).stdout)
    (told,) = [plugin for plugin in listed if plugin["name"] == "told"]
    assert told["tokenizer_options"] == {
        "told": {
            "size": {"type": "int", "default": 300},
            "lower": {"type": "bool", "default": False},
        }
    }
    assert "options of told: size=300, lower=false\n" in shell("plugins", env=env).stdout


@pytest.fixture
def broken_plugin(tmp_path: Path) -> dict[str, str]:
    """Give the environment of a process that finds a plugin which does not import."""
    info = tmp_path / "site" / "ckptstore_broken-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ckptstore-broken\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[ckptstore]\nbroken = no_such_module_of_anybody\n")
    return {"PYTHONPATH": str(info.parent)}


def test_plugins_says_what_failed_to_load_and_why(
    shell: Shell, broken_plugin: dict[str, str]
) -> None:
    person = shell("plugins", env=broken_plugin)
    program = shell("plugins", "--json", env=broken_plugin)

    assert person.returncode == program.returncode == 0
    (failed,) = [p for p in json.loads(program.stdout) if p["status"] == "failed"]
    assert failed["name"] == "broken"
    assert "no_such_module_of_anybody" in failed["error"]
    assert "no_such_module_of_anybody" in person.stdout


@pytest.fixture
def two_plugins(tmp_path: Path) -> dict[str, str]:
    """Give the environment of a process that finds two plugins: formats, and a tokenizer kind."""
    sources = {
        "archives": """
            from ckptstore import hookimpl
            from ckptstore.formats.base import Format

            class Old(Format):
                name = "old-archive"
                matches = lambda self, files: False
                read = lambda self, files: None

            class New(Old):
                name = "new-archive"
                writable = True

            @hookimpl
            def ckptstore_formats():
                return [Old, New]
            """,
        "letters": """
            from ckptstore import hookimpl
            from ckptstore.tokenizers.char import CharTokenizer

            class Letters(CharTokenizer):
                kind = "letters"

            @hookimpl
            def ckptstore_tokenizers():
                return [Letters]
            """,
    }
    for name, source in sources.items():
        info = tmp_path / "site" / f"ckptstore_{name}-0.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: ckptstore-{name}\nVersion: 0.2\n"
        )
        (info / "entry_points.txt").write_text(f"[ckptstore]\n{name} = {name}_module\n")
        (info.parent / f"{name}_module.py").write_text(textwrap.dedent(source))
    return {"PYTHONPATH": str(tmp_path / "site")}


def test_plugins_tells_formats_that_are_written_from_those_that_are_only_read(
    shell: Shell, two_plugins: dict[str, str]
) -> None:
    person = shell("plugins", env=two_plugins).stdout
    listed = json.loads(shell("plugins", "--json", env=two_plugins).stdout)

    archives = next(plugin for plugin in listed if plugin["name"] == "archives")
    assert archives["formats"] == ["old-archive", "new-archive"]
    assert archives["writable"] == ["new-archive"]
    (row,) = [line.split("  ") for line in person.splitlines() if "archives" in line]
    cells = [cell.strip() for cell in row if cell.strip()]
    assert cells == [
        "archives",
        "ckptstore-archives 0.2",
        "old-archive, new-archive",
        "new-archive",
        "-",
        "active",
    ]


@pytest.mark.parametrize(
    ("setting", "off"),
    [
        ("CKPTSTORE_PLUGINS=none", {"archives", "letters"}),
        ("CKPTSTORE_PLUGINS=letters", {"archives"}),
        ("CKPTSTORE_DISABLE_PLUGINS=ckptstore-letters", {"letters"}),
    ],
)
def test_plugins_says_which_variable_switches_a_plugin_off(
    shell: Shell, two_plugins: dict[str, str], setting: str, off: set[str]
) -> None:
    name, _, value = setting.partition("=")
    person = shell("plugins", env={**two_plugins, name: value})
    program = shell("plugins", "--json", env={**two_plugins, name: value})

    assert person.returncode == program.returncode == 0
    ours = [p for p in json.loads(program.stdout) if p["name"] in ("archives", "letters")]
    assert {p["name"]: p["off_by"] for p in ours if p["status"] == "off"} == dict.fromkeys(
        off, setting
    )
    assert {p["off_by"] for p in ours if p["status"] == "active"} <= {None}
    for plugin in off:
        assert f"{plugin}: switched off by {setting}\n" in person.stdout


def test_what_a_plugin_prints_when_it_is_imported_is_not_in_the_answer(
    shell: Shell, two_plugins: dict[str, str]
) -> None:
    with (Path(two_plugins["PYTHONPATH"]) / "letters_module.py").open("a") as module:
        module.write("print('thank you for using letters')\n")

    done = shell("plugins", "--json", env=two_plugins)

    assert "letters" in {plugin["name"] for plugin in json.loads(done.stdout)}
    assert "thank you for using letters" in done.stderr


def test_a_failed_plugin_is_a_warning_on_stderr_and_stops_nobody(
    shell: Shell, broken_plugin: dict[str, str], dante: Path
) -> None:
    loud = shell("inspect", dante, "--json", env=broken_plugin)
    quiet = shell("inspect", dante, "--json", "--quiet", env=broken_plugin)

    assert loud.returncode == quiet.returncode == 0
    assert json.loads(loud.stdout) == json.loads(quiet.stdout)
    (line,) = loud.stderr.splitlines()
    assert line.startswith("warning: ")
    assert quiet.stderr == ""
