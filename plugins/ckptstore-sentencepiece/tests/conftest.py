"""Work in a folder of the test's own, and run programs there."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig

import pytest


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Keep checkpoints, caches and files in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


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
