"""Plugins that are found without being installed."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptstore import plugins

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Give ``install(distribution, source, entry="name", module=None)``.

    It writes a module and the dist-info folder that makes it an installed package, in a folder
    of the test's own on sys.path. Both are forgotten at the end.
    """
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    modules: set[str] = set()

    def write(
        distribution: str, source: str, *, entry: str = "", module: str = "", target: str = ""
    ) -> None:
        module = module or distribution.replace("-", "_") + "_module"
        modules.add(module)
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        info = site / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n"
        )
        (info / "entry_points.txt").write_text(
            f"[ckptstore]\n{entry or distribution} = {target or module}\n"
        )
        plugins.reload()

    plugins.reload()
    yield write
    for name in modules:
        sys.modules.pop(name, None)
    monkeypatch.undo()
    plugins.reload()


@pytest.fixture
def info() -> Callable[[str], plugins.PluginInfo]:
    """Give a function that returns what is said about the plugin of a distribution."""

    def find(distribution: str) -> plugins.PluginInfo:
        (found,) = [one for one in plugins.loaded() if one.distribution == distribution]
        return found

    return find
