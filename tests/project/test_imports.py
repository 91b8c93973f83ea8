"""What ``import ckptstore`` costs: the first use of a name pays for it, nothing else does.

What the commands import is tested with them.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "fsspec", "s3fs", "aiobotocore", "botocore", "tiktoken", "rich"}
LIGHT = {"pluggy", "click", "xxhash"}


def imported_by(code: str) -> set[str]:
    """Return the top-level packages that a new interpreter imports for a piece of code."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    names = re.findall(r"^import time:[ \d]+\|[ \d]+\| +([\w.]+)$", done.stderr, re.MULTILINE)
    return {name.partition(".")[0] for name in names}


def test_importing_ckptstore_imports_nothing_else():
    found = imported_by("import ckptstore")

    assert "ckptstore" in found
    assert found & (HEAVY | LIGHT) == set()


def test_the_errors_and_the_policy_are_as_light():
    found = imported_by("from ckptstore import ConflictError, Keep, TensorInfo, hookimpl")

    assert found & (HEAVY | LIGHT) <= {"pluggy"}


@pytest.mark.parametrize("name", ["open", "save", "sync", "Store"])
def test_naming_a_function_imports_no_torch(name):
    found = imported_by(f"import ckptstore; ckptstore.{name}")

    assert found & HEAVY == set()
