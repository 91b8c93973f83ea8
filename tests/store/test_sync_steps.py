"""`sync_steps`: whole histories, a step at a time, so that what was interrupted goes on."""

from __future__ import annotations

import shutil

import pytest
import torch

import ckptstore


def weights(step):
    return {"w": torch.full((100,), float(step)), "frozen": torch.ones(2000)}


@pytest.fixture
def history(tmp_path):
    with ckptstore.Store(tmp_path / "run", keep=ckptstore.Keep()) as store:
        for step in (10, 20, 30):
            store.save(model=weights(step), step=step, metrics={"loss": 1 / step})
    return tmp_path / "run"


def steps(url, options=None):
    return ckptstore.Store(url, storage_options=options).steps()


def test_every_step_is_there_and_sound(location, history):
    url, options = location

    done = list(ckptstore.sync_steps(history, url, storage_options=options))

    assert [(transfer.step, transfer.changed) for transfer in done] == [
        (10, True),
        (20, True),
        (30, True),
    ]
    assert steps(url, options) == (10, 20, 30)
    for step in (10, 20, 30):
        checkpoint = ckptstore.open(url, step=step, storage_options=options)
        assert checkpoint.load_model()["w"][0] == step
        assert checkpoint.metrics == {"loss": 1 / step}
        assert checkpoint.verify().sound


def test_run_again_it_moves_nothing(location, history):
    url, options = location
    list(ckptstore.sync_steps(history, url, storage_options=options))

    again = list(ckptstore.sync_steps(history, url, storage_options=options))

    assert [transfer.changed for transfer in again] == [False] * 3


def test_only_the_highest_are_copied_where_that_is_asked(history, tmp_path):
    list(ckptstore.sync_steps(history, tmp_path / "copy", last=2))

    assert steps(tmp_path / "copy") == (20, 30)


def test_what_was_interrupted_goes_on_where_it_was(history, tmp_path):
    copying = ckptstore.sync_steps(history, tmp_path / "copy")
    next(copying)
    copying.close()
    assert steps(tmp_path / "copy") == (10,)

    done = list(ckptstore.sync_steps(history, tmp_path / "copy"))

    assert [transfer.changed for transfer in done] == [False, True, True]


def test_steps_of_the_destination_alone_stay(history, tmp_path):
    with ckptstore.Store(tmp_path / "copy", keep=ckptstore.Keep()) as store:
        store.save(model=weights(5), step=5)

    list(ckptstore.sync_steps(history, tmp_path / "copy"))

    assert steps(tmp_path / "copy") == (5, 10, 20, 30)


def test_a_step_with_other_content_is_a_conflict(history, tmp_path):
    with ckptstore.Store(tmp_path / "copy", keep=ckptstore.Keep()) as store:
        store.save(model=weights(7), step=20)

    with pytest.raises(ckptstore.ConflictError, match="step 20"):
        list(ckptstore.sync_steps(history, tmp_path / "copy"))

    copy = ckptstore.open(tmp_path / "copy", step=20)
    assert copy.load_model()["w"][0] == 7


def test_a_step_that_goes_meanwhile_is_left_out_and_named(history, tmp_path, caplog):
    copying = ckptstore.sync_steps(history, tmp_path / "copy")
    next(copying)
    shutil.rmtree(history / "step-00000020")

    assert [transfer.step for transfer in copying] == [30]
    assert "step 20 was removed while it was copied, and is left out" in caplog.text


def test_what_holds_no_steps_and_what_holds_a_single_one_are_told(history, tmp_path):
    ckptstore.save(tmp_path / "single", model=weights(1), step=1)

    with pytest.raises(ckptstore.NotFoundError, match="there is no history at"):
        list(ckptstore.sync_steps(tmp_path / "single", tmp_path / "copy"))
    with pytest.raises(ckptstore.ConflictError, match="holds a single checkpoint"):
        list(ckptstore.sync_steps(history, tmp_path / "single"))


def test_the_command_says_what_came_of_each_step(history, tmp_path):
    from click.testing import CliRunner

    from ckptstore.cli import main

    result = CliRunner().invoke(main, ["sync", "--last", "2", str(history), str(tmp_path / "c")])
    again = CliRunner().invoke(main, ["sync", "--all", str(history), str(tmp_path / "c")])
    wrong = CliRunner().invoke(main, ["sync", "--all", "--last", "2", "a", "b"])

    assert [line.rsplit(", ", 1)[1] for line in result.stdout.splitlines()] == [
        "step 20",
        "step 30",
    ]
    assert [": the same already" in line for line in again.stdout.splitlines()] == [
        False,
        True,
        True,
    ]
    assert wrong.exit_code == 2


class TestDelete:
    """`--delete` removes the steps that only the destination has, and asks before it copies."""

    @pytest.fixture
    def command(self, history, tmp_path):
        from click.testing import CliRunner

        from ckptstore.cli import main

        for step in (5, 10, 40):
            ckptstore.Store(tmp_path / "copy", keep=ckptstore.Keep()).save(
                model=weights(step), step=step
            )

        def command(*options):
            return CliRunner().invoke(
                main, ["sync", str(history), str(tmp_path / "copy"), *options]
            )

        return command

    def test_without_a_terminal_it_refuses_and_has_done_nothing(self, command, tmp_path):
        result = command("--all", "--delete")

        assert result.exit_code == 2
        assert "2 steps of" in result.stderr
        assert "5, 40; nothing was copied or deleted: give --yes" in result.stderr
        assert steps(tmp_path / "copy") == (5, 10, 40)

    def test_with_yes_the_other_steps_go_once_all_is_copied(self, command, tmp_path):
        result = command("--all", "--delete", "--yes")

        assert result.exit_code == 0, result.stderr
        assert steps(tmp_path / "copy") == (10, 20, 30)
        assert [line.split(" of ")[0] for line in result.stdout.splitlines()[-2:]] == [
            "deleted step 5",
            "deleted step 40",
        ]

    def test_with_last_only_these_stay(self, command, tmp_path):
        assert command("--last", "1", "--delete", "--yes").exit_code == 0
        assert steps(tmp_path / "copy") == (30,)

    def test_a_dry_run_says_what_would_go(self, command, tmp_path):
        result = command("--all", "--delete", "--dry-run")

        assert "would delete step 40" in result.stdout
        assert steps(tmp_path / "copy") == (5, 10, 40)

    def test_what_fails_deletes_nothing(self, command, history, tmp_path):
        damaged = history / "step-00000030" / "model.pt"
        damaged.write_bytes(damaged.read_bytes()[:-9] + b"damage!!!")

        assert command("--all", "--delete", "--yes").exit_code == 4
        assert {5, 40} < {*steps(tmp_path / "copy")}

    def test_it_is_about_steps(self, command):
        assert "give --all or --last" in command("--delete").stderr
        assert "--yes is for --delete" in command("--yes").stderr
