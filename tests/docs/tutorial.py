"""The packages that docs/plugins.md builds, as they stand there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.docs.places import ROOT

__all__ = ["PAGE", "files", "install", "write"]

PAGE = ROOT / "docs" / "plugins.md"
_FILE = re.compile(r"^\*\*\d+\. `([^`\n]+)`\*\*.*?^```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """Return the files of the packages: each is a fence below a numbered name."""
    return {found[1]: found[2] for found in _FILE.finditer(PAGE.read_text("utf-8"))}


def write(folder: Path) -> list[Path]:
    """Write the packages into a folder, and return the folder of each."""
    for name, text in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return [folder / name for name in sorted({name.partition("/")[0] for name in files()})]


def install(package: Path, target: Path) -> None:
    """Do what ``pip install`` does to a package of one module, as far as plugins see it."""
    project = (package / "pyproject.toml").read_text("utf-8")
    name, version = (
        re.search(rf'^{field} = "(.*)"$', project, re.M)[1] for field in ("name", "version")
    )
    points = re.search(r"^\[project\.entry-points\.ckptstore\]\n(.*?)\n\n", project, re.M | re.S)
    info = target / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[ckptstore]\n{points[1]}\n".replace('"', ""))
    shutil.copy(package / f"{name.replace('-', '_')}.py", target)
