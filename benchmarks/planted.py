"""Plant one fault at a time in a copy of the sources, and see which test finds it.

A test that cannot fail proves nothing. Each fault here is one that has cost somebody a checkpoint;
the command prints the first tests that notice it, and ends with 1 if one goes unnoticed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PLANTS", "Change", "Plant", "planted"]

PROJECT = Path(__file__).parent.parent
_COPIED = ("ckptstore", "gpt", "tests", "benchmarks", "plugins", "examples", "docs")


@dataclass(frozen=True)
class Change:
    """Text in a file of the project, and what stands in its place."""

    file: str
    before: str
    after: str


@dataclass(frozen=True)
class Plant:
    """One fault.

    Attributes:
        name: what is wrong, in words.
        guarantee: the number of what it breaks.
        tests: files and folders, the likeliest first.
        changes: what makes it.
    """

    name: str
    guarantee: str
    tests: tuple[str, ...]
    changes: tuple[Change, ...]


PLANTS = (
    Plant(
        "manifest before the data",
        "G2",
        ("tests/commit", "tests/faults", "tests/store"),
        (
            Change(
                "ckptstore/commit/writing.py",
                """            yield incoming
""",
                """            yield incoming
            self._add(files={name: FileEntry(path=path, digest=incoming.digest())})
            self._storage.replace(self._manifest_name, self._data(), durable=False)
""",
            ),
            Change(
                "ckptstore/commit/attempt.py",
                "        except (AlreadyThereError, StorageError) as error:\n"
                "            # After a retried",
                "        except AlreadyThereError:\n"
                "            self._storage.replace(self._manifest_name, data)\n"
                "        except StorageError as error:\n"
                "            # After a retried",
            ),
        ),
    ),
    Plant(
        "no fsync of the folder",
        "G3",
        ("tests/faults", "tests/guarantees"),
        (
            Change(
                "ckptstore/storage/disk.py",
                '    if os.name == "nt":\n        return\n    try:\n        descriptor',
                '    if os.name != "":\n        return\n    try:\n        descriptor',
            ),
        ),
    ),
    Plant(
        "no fsync of the files",
        "G3",
        ("tests/faults", "tests/guarantees"),
        (
            Change(
                "ckptstore/storage/disk.py",
                "            return\n    os.fsync(descriptor)",
                "            return",
            ),
        ),
    ),
    Plant(
        "rename in place of create-only on a local disk",
        "G7",
        ("tests/storage", "tests/commit", "tests/store"),
        (
            Change(
                "ckptstore/storage/local.py",
                "durable=durable, place=disk.place)",
                "durable=durable, place=os.replace)",
            ),
        ),
    ),
    Plant(
        "a plain PUT in place of create-only on S3",
        "G7",
        ("tests/storage", "tests/store"),
        (
            Change(
                "ckptstore/storage/s3conditions.py",
                'ONLY_NEW = {"IfNoneMatch": "*"}',
                "ONLY_NEW: dict[str, str] = {}",
            ),
        ),
    ),
    Plant(
        "no look for a newer generation after the commit",
        "G7",
        ("tests/commit", "tests/faults", "tests/stateful"),
        (
            Change(
                "ckptstore/commit/save.py",
                "    top = newest_generation(storage)\n"
                "    number = state.manifest.generation or 0\n",
                "    top = None\n    number = state.manifest.generation or 0\n",
            ),
        ),
    ),
    Plant(
        "the view is taken for the truth",
        "G2",
        ("tests/commit", "tests/faults", "tests/store"),
        (
            Change(
                "ckptstore/commit/layout.py",
                '    folders = (storage.list("") if listing is None else listing).folders\n'
                "    single =",
                '    shown = read_manifest(storage, "")\n'
                "    if shown is not None:\n"
                '        return Committed("", shown)\n'
                '    folders = (storage.list("") if listing is None else listing).folders\n'
                "    single =",
            ),
        ),
    ),
    Plant(
        "checksums are compared after the bytes were handed out",
        "G4",
        ("tests/corruption", "tests/commit", "tests/store"),
        (
            Change(
                "ckptstore/commit/proved.py",
                "        found = checksum(*parts)\n        if found != digest",
                "        found = checksum(*parts)\n        if index < 0 and found != digest",
            ),
        ),
    ),
    Plant(
        "older states are removed before the commit",
        "G2",
        ("tests/commit", "tests/faults", "tests/store"),
        (
            Change(
                "ckptstore/commit/save.py",
                "        save.write(attempt)\n        state = attempt.commit()\n",
                "        save.write(attempt)\n        remove_older(storage, number)\n"
                "        state = attempt.commit()\n",
            ),
        ),
    ),
    Plant(
        "a removal does not look for a pin",
        "G2",
        ("tests/commit", "tests/store"),
        (
            Change(
                "ckptstore/commit/pins.py",
                "        if PIN in there:\n            raise PinnedError(",
                "        if PIN in ():\n            raise PinnedError(",
            ),
        ),
    ),
    Plant(
        "a pin counts beside the word of a removal",
        "G2",
        ("tests/commit",),
        (
            Change(
                "ckptstore/commit/pins.py",
                "        if any(map(is_word, there)):\n",
                "        if any(map(is_word, ())):\n",
            ),
        ),
    ),
    Plant(
        "what cannot be read is taken for what nobody wants",
        "G2",
        ("tests/store",),
        (
            Change(
                "ckptstore/retaining.py",
                "                found[step] = None\n",
                '                found[step] = Measured(step, "", "", {}, 0)\n',
            ),
        ),
    ),
    Plant(
        "pickles are run",
        "G5",
        ("tests/tensors", "tests/attacks", "tests/ptfile"),
        (
            Change(
                "ckptstore/tensors/loading.py",
                "map_location=map_location, weights_only=True",
                "map_location=map_location, weights_only=False",
            ),
        ),
    ),
)


def planted(plant: Plant, folder: Path) -> None:
    """Copy the project into a folder, with a fault.

    Raises:
        ValueError: the text that is to be changed is not there exactly once.
    """
    for name in _COPIED:
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in PROJECT.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    for change in plant.changes:
        path = folder / change.file
        text = path.read_text(encoding="utf-8")
        if text.count(change.before) != 1:
            raise ValueError(f"{plant.name}: {change.file} does not hold its text exactly once")
        path.write_text(text.replace(change.before, change.after), encoding="utf-8")


def caught_by(plant: Plant, workers: str) -> list[str]:
    """Return the tests that fail with a fault, the first of them."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        planted(plant, Path(folder))
        tests = [test for test in plant.tests if (Path(folder) / test).exists()]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-n", workers, *tests],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
        )
    found = re.findall(r"^FAILED (\S+)", done.stdout, flags=re.MULTILINE)
    if not found and done.returncode:
        raise RuntimeError(f"{plant.name}: the tests did not run\n{done.stdout[-2000:]}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant the faults and print what finds them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planted", description=__doc__)
    parser.add_argument("only", nargs="*", help="faults to plant, by a part of their name")
    parser.add_argument("--workers", default="2", help="of pytest (default: 2)")
    options = parser.parse_args(arguments)
    chosen = [p for p in PLANTS if not options.only or any(w in p.name for w in options.only)]
    print("| planted fault | breaks | caught by | seconds |\n|---|---|---|---|")
    missed = 0
    for plant in chosen:
        start = time.monotonic()
        found = caught_by(plant, options.workers)
        missed += not found
        said = ", ".join(test.rpartition("/")[2] for test in found[:3]) or "NOTHING"
        seconds = f"{time.monotonic() - start:.0f}"
        print(f"| {plant.name} | {plant.guarantee} | {said} | {seconds} |", flush=True)
    return 1 if missed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
