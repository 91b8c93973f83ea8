"""A limit of what is read bounds the memory that is asked for, and no more than the file has is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ckptstore import storage

READ = """
import resource, sys
from ckptstore import storage

place = storage.connect(sys.argv[1])
place.read("small", limit=10)
limit = 256 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert place.read("small", limit=8 * limit) == b"abc"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS to be kept")
def test_a_small_file_is_read_where_there_is_little_memory(tmp_path):
    storage.connect(tmp_path).create("small", b"abc")

    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_a_limit_cuts_what_is_read(tmp_path):
    place = storage.connect(tmp_path)
    place.create("small", b"abc")

    assert [place.read("small", limit=n) for n in (0, 2, 3, 4)] == [b"", b"ab", b"abc", b"abc"]
    assert place.read("small") == b"abc"
