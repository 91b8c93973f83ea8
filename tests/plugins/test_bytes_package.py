"""The package in plugins/ckptstore-bytes: built, installed, used, and removed again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "plugins" / "ckptstore-bytes"


def python(*args: str, **environ: str) -> str:
    """Run Python with these arguments and return its output."""
    result = subprocess.run(
        [sys.executable, *args],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package as a wheel and install that into a folder; no network is used."""
    folder = tmp_path_factory.mktemp("bytes")
    shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    offline = ("--no-deps", "--no-index", "--disable-pip-version-check", "--quiet")
    python(
        *("-m", "pip", "wheel", *offline, "--no-build-isolation"),
        *("--wheel-dir", str(folder), str(folder / "source")),
    )
    (wheel,) = folder.glob("*.whl")
    assert wheel.name == "ckptstore_bytes-0.1.0-py3-none-any.whl"
    python("-m", "pip", "install", *offline, "--target", str(folder / "site"), str(wheel))
    return folder / "site"


def with_plugin(site: Path, code: str) -> str:
    return python("-c", textwrap.dedent(code), PYTHONPATH=str(site))


def without_plugin(code: str) -> str:
    # It may be installed in the environment of whoever runs this.
    return python("-c", textwrap.dedent(code), CKPTSTORE_DISABLE_PLUGINS="ckptstore-bytes")


def test_the_installed_package_is_found(site: Path) -> None:
    out = with_plugin(
        site,
        """
        from ckptstore import plugins
        (info,) = [i for i in plugins.loaded() if i.distribution == "ckptstore-bytes"]
        print(info, info.tokenizers, info.status)
        print(plugins.load_tokenizer({"token_kind": "bytes"}).encode("aé"))
        """,
    )
    assert out == (
        "'bytes' (ckptstore-bytes 0.1.0, module ckptstore_bytes) ('bytes',) active\n"
        "[97, 195, 169]\n"
    )


def test_the_package_passes_its_own_tests(site: Path) -> None:
    tests = str(PACKAGE / "tests")
    out = python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"),
        *("-W", "error", "--rootdir", tests, tests),
        PYTHONPATH=str(site),
        PYTHONDONTWRITEBYTECODE="1",
    )
    assert " passed" in out


def test_without_the_package_a_checkpoint_opens_and_only_encoding_is_refused(
    site: Path, tmp_path: Path
) -> None:
    location = str(tmp_path / "dante")
    with_plugin(
        site,
        f"""
        import ckptstore, torch
        from ckptstore import plugins
        tokenizer = plugins.tokenizer_kind("bytes").from_text("")
        ckptstore.save({location!r}, model={{"w": torch.ones(2)}}, tokenizer=tokenizer, step=3)
        assert ckptstore.open({location!r}).load_tokenizer().encode("a") == [97]
        """,
    )
    out = without_plugin(
        f"""
        import ckptstore, json, torch
        checkpoint = ckptstore.open({location!r})
        assert torch.equal(checkpoint.load_model()["w"], torch.ones(2))
        checkpoint.verify()
        try:
            checkpoint.load_tokenizer()
        except ckptstore.UnsupportedError as error:
            print(json.dumps([checkpoint.step, checkpoint.tokenizer_state, str(error)]))
        ckptstore.save({location!r}, model=checkpoint.load_model(), step=4,
                       tokenizer=checkpoint.tokenizer_state)
        """
    )
    step, state, message = json.loads(out)
    assert (step, state) == (3, {"token_kind": "bytes"})
    assert "the tokenizer kind 'bytes' is not installed; installed: 'char', 'gpt2'" in message
    again = f"import ckptstore; print(ckptstore.open({location!r}).load_tokenizer().encode('a'))"
    assert with_plugin(site, again) == "[97]\n"
