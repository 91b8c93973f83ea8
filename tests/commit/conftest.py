"""States to commit, made without torch: the commit does not look into files of bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ckptstore.commit.save import Save
from ckptstore.formats.base import NewFiles

SaveOf = Callable[..., Save]


@pytest.fixture
def save_of() -> SaveOf:
    """Return a function that makes a save of one file of bytes and one of JSON."""

    def make(content: str, *, step: int | None = None, optimizer: bool = False) -> Save:
        def write(files: NewFiles) -> None:
            files.write_text("config.json", f'{{"content": "{content}"}}\n')
            names = ["model.pt", "optimizer.pt"] if optimizer else ["model.pt"]
            for name in names:
                with files.create(name) as sink:
                    sink.write(memoryview(f"{name} of {content}".encode()))

        return Save(write=write, index=lambda files, name: None, step=step)

    return make
