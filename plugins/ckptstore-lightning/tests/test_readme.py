"""Every example of the README runs as it stands there, all of them in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_examples_run(tmp_path, moto_server):
    client = moto_server.client()
    client.create_bucket(Bucket="bucket")
    client.close()
    fences = _FENCE.findall(README.read_text("utf-8"))
    assert {language for language, _ in fences} == {"sh", "python", "console"}
    commands = "".join(text for language, text in fences if language == "console")
    program = "\n".join(text for language, text in fences if language == "python")
    (tmp_path / "example.py").write_text(program, "utf-8")
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    environ = {**os.environ, **moto_server.environ, "PATH": path, "PYTHONWARNINGS": "ignore"}

    def run(*words: str) -> None:
        done = subprocess.run(
            words, cwd=tmp_path, env=environ, capture_output=True, encoding="utf-8", check=False
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"

    run(sys.executable, "example.py")
    for line in commands.splitlines():
        run("sh", "-c", line.removeprefix("$ "))
