"""What the README shows runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_readme_is_true(tmp_path, server):
    client = server.client()
    client.create_bucket(Bucket="bucket")
    client.close()
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join([scripts, os.environ["PATH"]])
    environ = {**os.environ, **server.environ, "PATH": path}

    def call(*words):
        done = subprocess.run(
            words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr

    blocks = BLOCK.findall(README.read_text("utf-8"))
    code = [text for language, text in blocks if language == "python"]
    commands = re.findall(r"^\$ (ckptstore .*)$", README.read_text("utf-8"), re.MULTILINE)
    assert (len(code), len(commands)) == (2, 4)

    call(sys.executable, "-c", "\n".join(code))
    for command in commands:
        call("sh", "-c", command)
