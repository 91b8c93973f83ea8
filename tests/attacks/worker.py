"""Runs hostile checkpoints through commands and functions, in processes that are watched.

Started by `conftest.py` as ``python worker.py FOLDER``. It imports torch once, and then forks: a
child has the audit hook and limits of memory and time; what it finds goes back as JSON.
Reads lines ``short GROUP`` or ``full GROUP`` from stdin, and answers each with one line.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from actions import ACTIONS, Action, Outcome, Place
from building import Gadgets, Item, base, put
from corpus import GROUPS
from guard import Guard

FOREIGN = frozenset({"attack_payload", "runpy", "antigravity", "this", "idlelib", "turtle"})
SECONDS = 600.0  # for a child, by the clock, which another program may have slowed
CPU_SECONDS = 200  # for a child
MEMORY = 300 * 2**20  # beyond what the process has at the start
TOGETHER = 20  # checkpoints in one child
# In a short run each checkpoint goes through what has to refuse it, and some of all other actions:
# which ones changes from one to the next, so that every action meets every group.
FIRST = ("inspect", "load_model", "load_optimizer", "load_state", "load_tokenizer", "open")
SPREAD = 13
_LONG = ("inspect --json", "verify", "convert", "ls", "gpt inspect", "memory://")
PAYLOAD = "import pathlib\npathlib.Path({mark!r}).touch()\n\n\nclass Thing:\n    pass\n"


class Worker:
    """Builds each item of a group below a folder, and runs all actions on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        outside, payload = root / "outside", root / "payload"
        for folder in (outside, payload):
            folder.mkdir()
        self.gadgets = Gadgets(root / "mark", outside, payload / "attack_payload.py")
        self.gadgets.script.write_text(PAYLOAD.format(mark=str(self.gadgets.mark)))
        put(outside, {**base(), "secret.pt": base()["model.pt"], "secret": b"secret " * 9})
        self.canaries = _snapshot(outside)
        self.guard = Guard(FOREIGN)

    def prepare(self) -> None:
        """Run all actions once on sound checkpoints, so that lazy imports are done."""
        folder = self.root / "sound" / "dante"
        put(folder, base())
        for action in ACTIONS:
            free = self.root / "sound" / "free"
            action.call(Place(folder, str(folder), free))
            shutil.rmtree(free, ignore_errors=True)
            shutil.rmtree(folder)
            put(folder, base())
        sys.path.insert(0, str(self.gadgets.script.parent))
        gc.collect()
        gc.freeze()  # What every child shares is not looked through again in each.
        self.guard.install()

    def group(self, name: str, *, short: bool) -> list[dict[str, Any]]:
        """Return the outcomes of a group of items, a few items in one child process."""
        items = list(enumerate(GROUPS[name](self.gadgets)))
        found = []
        several = TOGETHER if short else 1  # In full each takes as long as many do in short.
        for start in range(0, len(items), several):
            found += self.together(items[start : start + several], short=short)
        return found

    def together(self, items: list[tuple[int, Item]], *, short: bool) -> list[dict[str, Any]]:
        """Return the outcomes of some items; those of one that killed its process are cut off."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            self._in_child(items, write, short=short)
        os.close(write)
        raw = _all_of(read, SECONDS)
        if raw is None:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        found: dict[int, dict[str, Any]] = {
            number: {
                "item": item.name,
                "touches": sorted(item.touches),
                "codes": sorted(item.codes),
                "actions": [],
                "memory": None,
            }
            for number, item in items
        }
        for line in (raw or b"").decode().splitlines():
            number, key, value = json.loads(line)
            if key == "action":
                found[number]["actions"].append(value)
            else:
                found[number][key] = value
        return list(found.values())

    def _in_child(self, items: list[tuple[int, Item]], write: int, *, short: bool) -> None:
        try:
            limit = _field("VmSize:") + 4 * MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
            with os.fdopen(write, "w", buffering=1) as out:
                home = self.root / "items" / "dante"
                for number, item in items:
                    shutil.rmtree(home.parent, ignore_errors=True)
                    home.parent.mkdir(parents=True)
                    item.build(home)
                    Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
                    start = _field("VmHWM:")
                    for action in _chosen(number, item, short=short):
                        done = self._run(item, action, home)
                        out.write(json.dumps([number, "action", done]) + "\n")
                    out.write(json.dumps([number, "memory", _field("VmHWM:") - start]) + "\n")
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)

    def _run(self, item: Item, action: Action, home: Path) -> dict[str, Any]:
        free = self.root / "items" / "free"
        place = Place(home, str(home / item.target) if item.target else str(home), free)
        if action.name == "sync into":
            put(free, base())
        if item.large:
            gc.collect()  # What an error of the last action held on to.
        before = _snapshot(home)
        started = time.process_time()
        followed = [str(self.gadgets.outside)] if item.follows else []
        self.guard.start(str(self.root / "items"), *followed)
        try:
            outcome = action.call(place)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {str(error)[:300]} ({where.filename}:{where.lineno})"
            outcome = Outcome(None, said)
        faults = self.guard.stop()
        seconds = time.process_time() - started
        if self.gadgets.mark.exists():
            faults.append("it ran: the mark is there")
            self.gadgets.mark.unlink()
        if _snapshot(self.gadgets.outside) != self.canaries:
            faults.append("something outside was changed")
        if not action.writes and _snapshot(home) != before:
            faults.append("the checkpoint was changed by what only reads")
        shutil.rmtree(free, ignore_errors=True)
        if action.writes:
            shutil.rmtree(home, ignore_errors=True)
            item.build(home)
        return {
            "action": action.name,
            "reads": sorted(action.reads),
            **asdict(outcome),
            "seconds": round(seconds, 3),
            "faults": faults,
        }


def _chosen(number: int, item: Item, *, short: bool) -> list[Action]:
    if not short and not item.large:
        return ACTIONS
    first = {action.name: action for action in ACTIONS if action.name in FIRST}
    wanted = [
        first[name] for name in FIRST if first[name].reads & (item.touches or {"index", "model"})
    ]
    if item.large:
        return wanted if short else [*first.values(), *(a for a in ACTIONS if a.name in _LONG)]
    spread = [a for at, a in enumerate(ACTIONS) if (at + number) % SPREAD == 0 and a not in wanted]
    return [*wanted[:2], *spread]


def _snapshot(folder: Path) -> list[tuple[Any, ...]]:
    """Return what tells whether anything below a folder was changed."""
    found = []
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(where, name)
            status = os.lstat(path)
            size = status.st_size if name in files else 0
            found.append((path, status.st_ino, size, name in files and status.st_mtime_ns))
    return sorted(found)


def _all_of(descriptor: int, seconds: float) -> bytes | None:
    """Return all that comes through a pipe until its end, or None where that takes too long."""
    data, end = b"", time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            sys.stderr.write(f"too slow, after: {data[-300:]!r}\n")
            return None
        piece = os.read(descriptor, 2**16)
        if not piece:
            return data
        data += piece


def _field(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def main() -> None:
    """Answer requests until stdin ends."""
    # What actions print goes nowhere: stdout is the answers' alone.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        warnings.simplefilter("ignore")
        logging.getLogger("ckptstore").addHandler(logging.NullHandler())
        worker = Worker(Path(sys.argv[1]))
        worker.prepare()
        answers.write("ready\n")
        answers.flush()
        for line in sys.stdin:
            short, _, name = line.strip().partition(" ")
            answers.write(json.dumps(worker.group(name, short=short == "short")) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
