"""G2, G3: SIGKILL at any moment leaves the whole old state or the whole new one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

# The parent imports torch once and forks writers, so that many can be killed in little time. A
# writer reports each step once `save` has returned: what it reported must not be lost.
LOCAL = """
import os, random, signal, sys, time
import torch, ckptstore
torch.set_num_threads(1)
folder, kills = sys.argv[1], int(sys.argv[2])
keep = ckptstore.Keep(last=2) if sys.argv[3] == "history" else None

def save(step):
    model = {name: torch.full((20_000,), float(step)) for name in ("a", "b", "c")}
    moments = {"state": {0: {"m": torch.full((20_000,), float(step))}}, "param_groups": []}
    # Not durable, which SIGKILL does not notice: so more saves fit between two kills.
    ckptstore.Store(folder, keep=keep, durable=False).save(
        model=model, optimizer=moments, config={"step": step}, step=step
    )

def check(acknowledged):
    checkpoint = ckptstore.open(folder)
    assert checkpoint.step >= acknowledged, (checkpoint.step, acknowledged)
    values = {float(v) for t in checkpoint.load_model().values() for v in t.unique()}
    values |= {float(v) for v in checkpoint.load_optimizer()["state"][0]["m"].unique()}
    assert values == {float(checkpoint.step)}, (values, checkpoint.step)
    assert checkpoint.config == {"step": checkpoint.step}
    assert checkpoint.edited == ()
    return checkpoint.step

save(1)
step = 1
for kill in range(kills):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for number in range(step + 1, step + 1000):
                save(number)
                os.write(writer, b"%d\\n" % number)
        finally:
            os._exit(1)
    os.close(writer)
    time.sleep(random.Random(kill).uniform(0.0, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        done = [int(line) for line in pipe if line.endswith("\\n")]
    step = check(done[-1] if done else step)
save(step + 1)
assert check(step + 1) == step + 1
print(step)
"""


@pytest.mark.parametrize("kind", ["single", "history"])
def test_killed_writers_on_local_disk(tmp_path, kind):
    folder = tmp_path / "dante"

    done = subprocess.run(
        [sys.executable, "-c", LOCAL, str(folder), "60", kind],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5, "the writers got somewhere between the kills"
    if kind == "single":
        assert len(list((folder / ".ckptstore").iterdir())) == 1, "leftovers are gone"
        assert json.loads((folder / "manifest.json").read_text())["step"] == int(done.stdout) + 1


REMOTE = """
import sys
import torch, ckptstore
torch.set_num_threads(1)
url, step = sys.argv[1], int(sys.argv[2])
while True:
    model = {name: torch.full((300_000,), float(step)) for name in ("a", "b", "c")}
    ckptstore.save(url, model=model, config={"step": step}, step=step)
    print(step, flush=True)
    step += 1
"""


def test_killed_writers_on_s3(s3_server: Any, monkeypatch):
    for name, value in s3_server.environ.items():
        monkeypatch.setenv(name, value)
    url = s3_server.url()
    import ckptstore

    step = 1
    for kill in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", REMOTE, url, str(step)], stdout=subprocess.PIPE, text=True
        )
        # A few saves, then somewhere inside the next one.
        done = [int(writer.stdout.readline()) for _ in range(2)]
        try:
            writer.wait(timeout=0.013 * (kill * 7 % 5))
        except subprocess.TimeoutExpired:
            writer.kill()
        done += [int(line) for line in writer.communicate()[0].splitlines()]

        checkpoint = ckptstore.open(url)

        assert checkpoint.step >= done[-1]
        values = {float(v) for t in checkpoint.load_model().values() for v in t.unique()}
        assert values == {float(checkpoint.step)}
        assert checkpoint.config == {"step": checkpoint.step}
        assert checkpoint.edited == ()
        step = checkpoint.step + 1
