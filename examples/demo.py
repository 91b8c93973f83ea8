"""What ``make demo`` shows: a small GPT that is killed in the middle of training, and goes on.

It prints each command before it runs it, and leaves ``checkpoints/dante``. Run again, it trains
the model that is there further. Needs nothing but ckptstore.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import time

LOCATION = "checkpoints/dante"
SIZE = "--block_size 64 --n_embd 64 --n_head 4 --n_layer 3 --batch_size 16 --dropout 0.2"
PACE = "--eval_interval 100 --eval_iters 10 --learning_rate 1e-3 --seed 1"
STEPS = 600
KILLED_AFTER = 300
WRITING = "--max_new_tokens 200 --temperature 0.8 --seed 1"


def main() -> None:
    """Run the demo."""
    start = finished_steps()
    if start:
        say(f"{LOCATION} is there already, with {start} finished steps: it is trained further")
    train = f"gpt train --model_name dante --max_iters {start + STEPS} {SIZE} {PACE}"

    say("a small GPT learns passages of Dante's Inferno, letter by letter")
    train_and_kill(train, start + KILLED_AFTER)
    say("the same command again goes on from the last checkpoint, exactly")
    run(train)
    say("it writes")
    run(f"gpt generate --model_name dante --prompt 'Nel mezzo del cammin' {WRITING}")
    say("what the checkpoint holds, read without torch and without its weights")
    run(f"ckptstore inspect {LOCATION}")
    say("every byte of it, proved")
    run(f"ckptstore verify {LOCATION}")
    say("and it is plain files, which need nothing of ours to be read")
    run(f"ls -l {LOCATION}")
    run(f"cat {LOCATION}/training_state.json")


def finished_steps() -> int:
    """Return the steps of a model that an earlier demo left; 0 where there is none."""
    if not os.path.exists(LOCATION):
        return 0
    inspect = words(f"ckptstore inspect {LOCATION} --json")
    found = subprocess.run(inspect, stdout=subprocess.PIPE, check=False)
    return (json.loads(found.stdout)["step"] or 0) if found.returncode == 0 else 0


def train_and_kill(command: str, step: int) -> None:
    """Train until a step was reported, a moment more, and end the process with SIGKILL."""
    show(command)
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        words(command), stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environ
    ) as process:
        seen = time.monotonic()
        for line in process.stdout or ():
            print(line, end="", flush=True)
            reported = re.match(r"step +(\d+)/", line)
            if reported and int(reported[1]) >= step:
                # Half way to the next checkpoint, so that some steps are really lost.
                time.sleep((time.monotonic() - seen) / 2)
                process.kill()
            seen = time.monotonic()
    if process.returncode >= 0:
        sys.exit(f"the training ended by itself, with exit code {process.returncode}")
    say(f"killed with SIGKILL, some steps after step {step}: nothing could be tidied up")


def run(command: str) -> None:
    """Show a command and run it; end where it fails."""
    show(command)
    code = subprocess.run(words(command), check=False).returncode
    if code:
        sys.exit(f"this failed with exit code {code}")


def words(command: str) -> list[str]:
    """Return a command's words, with the programs of this Python's own environment first."""
    program, *arguments = shlex.split(command)
    own = os.path.join(sysconfig.get_path("scripts"), program)
    return [own if os.path.exists(own) else program, *arguments]


def show(command: str) -> None:
    """Print a command as one would type it."""
    print(f"\n$ {command}", flush=True)


def say(line: str) -> None:
    """Print what comes next."""
    print(f"\n# {line}", flush=True)


if __name__ == "__main__":
    main()
