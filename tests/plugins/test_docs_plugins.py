"""docs/plugins.md: its packages are real, its format passes the kit, its hooks are all there."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ckptstore import hookspecs

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "plugins" / "ckptstore-bytes"


def fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_every_hook_has_a_heading_with_its_signature() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("ckptstore_")]
    assert len(hooks) == 2
    for name in hooks:
        signature = inspect.signature(getattr(hookspecs, name))
        assert f"### `{name}() -> {signature.return_annotation}`\n" in TEXT


def test_the_tutorial_is_the_package_that_ships() -> None:
    (project,) = fences("toml")
    shipped = (PACKAGE / "pyproject.toml").read_text(encoding="utf-8")
    assert project == re.sub(r'^(readme|license) = ".*"\n', "", shipped, flags=re.MULTILINE)
    blocks = fences("python")
    assert blocks[0] == (PACKAGE / "ckptstore_bytes.py").read_text(encoding="utf-8")
    assert blocks[1] == (PACKAGE / "tests" / "test_bytes.py").read_text(encoding="utf-8")


def test_the_format_passes_the_kit(install: Callable[..., None], tmp_path: Path) -> None:
    (source,) = (block for block in fences("python") if "class JsonFormat(" in block)
    (tests,) = (block for block in fences("python") if "class TestJson(" in block)
    install("ckptstore-json", source, entry="json")
    imports = "import torch\nfrom ckptstore.formats.base import Contents\n"
    (tmp_path / "test_json.py").write_text(imports + tests)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout


def test_every_environment_variable_is_documented() -> None:
    for variable in ("CKPTSTORE_PLUGINS=none", "CKPTSTORE_PLUGINS=a,b", "DISABLE_PLUGINS=a,b"):
        assert variable in TEXT
