"""G1, G2, G7: traces that the model found, done with the real code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ckptstore.commit.edits import hand_edits
from ckptstore.commit.layout import generation_folder, newest_generation
from ckptstore.commit.remove import remove_step
from ckptstore.commit.repair import repair
from ckptstore.commit.save import Save, save_generation, save_step
from ckptstore.commit.view import view_manifest
from ckptstore.errors import ConflictError
from ckptstore.formats.base import NewFiles
from ckptstore.manifest import MANIFEST
from ckptstore.opening import open_place
from ckptstore.storage import connect

from .recording import Recording


def save(content: str, *, step: int | None = None, size: int = 0) -> Save:
    def write(files: NewFiles) -> None:
        files.write_text("config.json", f'{{"content": "{content}"}}')
        with files.create("model.pt") as sink:
            sink.write(memoryview(f"model.pt of {content}{'.' * size}".encode()))

    return Save(write=write, index=lambda files, name: None, step=step)


def at_operation(place: Any, kind: str, name: str, between: Callable[[], object]) -> Recording:
    """Return a recording storage that lets somebody in before the first such operation."""

    class Waiting(Recording):
        def _step(self, *step: str) -> None:
            if step == (kind, name) and not self.came:
                self.came = True
                between()
            super()._step(*step)

        came = False

    return Waiting(place, "s3", {})


@pytest.fixture
def place(memory_url):
    return connect(memory_url)


def test_nobody_opens_a_generation_that_came_too_late(place):
    first, late = save_generation(place, save("A")), save("late")
    save_generation(place, save("B"))

    def others() -> None:
        save_generation(place, save("C"))
        manifest = late.manifest(2, first.manifest)
        with late.attempt(place, generation_folder(2), manifest) as attempt:
            late.write(attempt)
            attempt.commit()  # And before it could look for a newer one, it is stopped.

    reader = at_operation(place, "read", "g2/M", others)

    checkpoint = open_place(reader, None)

    assert reader.came
    assert checkpoint.config == {"content": "C"}


def test_a_late_file_that_is_refreshed_meanwhile_is_nobodys(place):
    save_generation(place, save("A"))
    state = save_generation(place, save("B", size=5))
    place.replace("model.pt", b"model.pt of A")
    source = state.path(state.manifest.files["model.pt"].path)
    reader = at_operation(place, "open", "v/m", lambda: place.copy(source, "model.pt"))

    assert hand_edits(reader, state) == {}
    assert reader.came


@pytest.mark.parametrize("name", ["model.pt", "config.json"])
def test_doctor_finds_a_late_file_that_the_view_was_said_to_have(place, name):
    save_generation(place, save("A"))
    old = place.read(name)
    state = save_generation(place, save("B"))
    new = place.read(name)
    place.replace(name, old)
    storage = Recording(place, "s3", {})
    view = view_manifest(place)
    shown = {**view.shown, name: storage.list("").files[name].version}
    place.replace(MANIFEST, replace(view, shown=shown).to_json().encode())

    done = repair(storage)

    assert done == ("refreshed the view to generation 2",)
    assert place.read(name) == new
    assert newest_generation(place) == state


def test_a_step_that_goes_while_it_is_overwritten_is_a_conflict(place):
    save_step(place, save("A", step=1), overwrite=False)
    writer = at_operation(place, "flush", "s1", lambda: remove_step(place, 1))

    with pytest.raises(ConflictError, match="step 1 of .* was removed meanwhile; .* save again"):
        save_step(writer, save("B", step=1), overwrite=True)

    assert place.list("").folders == (), "nothing of either is left"
