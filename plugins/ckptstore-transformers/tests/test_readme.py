"""The README's Python runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_python_of_the_readme_runs(moto, tmp_path):
    text = (ROOT / "README.md").read_text("utf-8")
    fences = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(fences) == 3
    client = moto.client()
    client.create_bucket(Bucket="bucket")
    client.close()

    done = subprocess.run(
        [sys.executable, "-c", "\n".join(fences)],
        cwd=tmp_path,
        env={**os.environ, **moto.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert done.returncode == 0, done.stdout + done.stderr
