"""What is installed: the wheel holds what is needed, and nothing of the workshop."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

import pytest

import ckptstore

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = builder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return zipfile.ZipFile(path)


def stated(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))


@pytest.mark.parametrize(
    "name", ["ckptstore/py.typed", "gpt/inferno.txt", "ckptstore/testing/formats.py"]
)
def test_the_wheel_holds(wheel, name):
    assert name in wheel.namelist()


def test_the_wheel_holds_every_module_and_nothing_else(wheel):
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("ckptstore", "gpt")
        for path in (ROOT / package).rglob("*.py")
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert modules <= packed
    assert {name.partition("/")[0] for name in packed} == {"ckptstore", "gpt"}
    assert {Path(name).suffix for name in packed} <= {".py", ".typed", ".txt"}


def test_the_wheel_holds_the_licence_and_the_commands(wheel):
    names = {name.partition(".dist-info/")[2] for name in wheel.namelist()}
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))

    assert {"licenses/LICENSE", "METADATA"} <= names
    assert "ckptstore = ckptstore.cli:main" in wheel.read(entry_points).decode()


def test_the_version_is_that_of_the_package():
    assert stated(ROOT)["project"]["version"] == ckptstore.__version__


def test_the_changelog_begins_with_this_version():
    found = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)

    assert found is not None
    assert found[1] == ckptstore.__version__


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda folder: folder.name)
def test_what_is_required_is_stated_with_a_range_and_pinned_for_our_own_environments(folder):
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    project = stated(folder)["project"]
    groups = project.get("optional-dependencies", {}).values()
    required = {*project["dependencies"], *(name for group in groups for name in group)}
    names = {re.match(r"[\w-]+", name)[0] for name in required}
    ours = {stated(folder)["project"]["name"] for folder in PROJECTS}

    assert names - ours <= pinned
    assert all(">=" in name or name == "ckptstore" for name in project["dependencies"])
    assert project["requires-python"] == stated(ROOT)["project"]["requires-python"]
