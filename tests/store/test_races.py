"""G7, G2: of writers at one moment each wins or knows; readers see only whole states."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

import ckptstore
from ckptstore.commit.layout import generations
from ckptstore.storage import connect, disk, s3conditions
from ckptstore.testing import Operation, inject


def save(url: object, value: int, options: Any = None) -> ckptstore.Checkpoint:
    import torch

    model = {"w": torch.full((4,), float(value))}
    return ckptstore.save(
        url, model=model, config={"value": value}, step=value, storage_options=options
    )


def value_of(checkpoint: ckptstore.Checkpoint) -> tuple[int, float]:
    """Return what the config says and what the weights say."""
    return checkpoint.config["value"], checkpoint.load_model()["w"][0].item()


def plain_copy(source: Any, folder: Any) -> None:
    """Make a folder of three plain files, as somebody copies them by hand."""
    import shutil

    folder.mkdir()
    for name in ("config.json", "model.pt", "training_state.json"):
        shutil.copy(source / name, folder / name)


class TestFirstSave:
    """A first save replaces plain files one by one: a reader beside it sees before or after."""

    @pytest.fixture
    def folder(self, tmp_path: Any) -> Any:
        save(tmp_path / "source", 1)
        plain_copy(tmp_path / "source", tmp_path / "dante")
        return tmp_path / "dante"

    @pytest.mark.parametrize("moment", ["list", "read config.json", "read training_state.json"])
    def test_a_reader_that_opens_meanwhile_sees_the_save(self, folder, moment):
        saved = []

        def meanwhile(operation: Operation, perform: Callable[..., Any]) -> Any:
            done = perform()
            if str(operation) == moment and not saved:
                saved.append(True)
                save(folder, 2)
            return done

        with inject(meanwhile):
            checkpoint = ckptstore.open(folder)

        assert saved
        assert value_of(checkpoint) == (2, 2.0)

    def test_a_handle_on_plain_files_is_superseded(self, folder):
        checkpoint = ckptstore.open(folder)
        save(folder, 2)

        with pytest.raises(ckptstore.SupersededError, match="were replaced by generation 1"):
            checkpoint.load_model()

    def test_a_handle_on_a_copied_view_is_superseded_not_damaged(self, tmp_path, folder):
        import shutil

        shutil.copy(tmp_path / "source" / "manifest.json", folder / "manifest.json")
        checkpoint = ckptstore.open(folder)
        save(folder, 2)

        with pytest.raises(ckptstore.SupersededError, match="were replaced by generation 1"):
            checkpoint.load_model()

    def test_a_handle_on_a_legacy_file_stays_good(self, tmp_path):
        import torch

        torch.save({"model_state_dict": {"w": torch.ones(4)}, "config": {}}, tmp_path / "latest.pt")
        checkpoint = ckptstore.open(tmp_path)
        save(tmp_path, 2)

        assert checkpoint.load_model()["w"][0].item() == 1.0


@pytest.mark.parametrize("file", ["manifest.json", "config.", "training_state."])
def test_a_loser_whose_files_were_cleaned_up_is_told_that_it_came_too_late(
    tmp_path, monkeypatch, file
):
    folder = tmp_path / "dante"
    place = disk.place
    rivals = []

    def late(source: str, path: str) -> None:
        if not rivals and path.rpartition("/")[2].startswith(file):
            # Two saves of others: the second one's cleaning takes this one's temporary file.
            rivals.extend((2, 3))
            for value in rivals:
                save(folder, value)
        place(source, path)

    monkeypatch.setattr(disk, "place", late)

    with pytest.raises(ckptstore.ConflictError, match="came too late: generation 2 was committed"):
        save(folder, 1)

    assert rivals
    assert value_of(ckptstore.open(folder)) == (3, 3.0)
    assert generations(connect(folder)) == (2,)
    assert len(list((folder / ".ckptstore").iterdir())) == 1


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process know of no server whether it keeps conditions."""
    monkeypatch.setattr(s3conditions, "_creates_only", {})


def test_where_two_writers_are_not_kept_apart_it_is_said_once(rclone_server, caplog, forgotten):
    url = rclone_server.url()

    with caplog.at_level(logging.WARNING, "ckptstore"):
        for value in (1, 2):
            save(url, value, rclone_server.storage_options)
        save(f"{url}-too", 1, rclone_server.storage_options)

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "does not keep two writers apart" in said[0]
    assert "let only one process at a time save there" in said[0]


def test_where_two_writers_are_kept_apart_nothing_is_said(moto_server, caplog, forgotten):
    with caplog.at_level(logging.WARNING, "ckptstore"):
        save(moto_server.url(), 1, moto_server.storage_options)

    assert caplog.records == []


@pytest.mark.parametrize(("storage", "races"), [("local", 4), ("moto", 1), ("rclone", 1)])
def test_eight_processes_at_once(storage, races, faults):
    counts = faults("--storage", storage, "--kills", 0, "--races", races)

    assert counts["races"] == races
    assert counts["reads in races"] > 0
    assert counts["saves refused"] > counts["saves"], "they were in each other's way"
