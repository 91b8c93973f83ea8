"""``ckptstore upload``, and what ``ls`` and ``inspect`` say of what waits."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from ckptstore import Keep, Store, Tier
from ckptstore.cli import main
from ckptstore.storage import connect
from ckptstore.tiers.journal import JOURNAL, Journal
from tests.tiers.conftest import model, waiting_in


def run(*words, code=0):
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def there(local, tmp_path):
    """Give a tier for which three steps wait."""
    tier = Tier(tmp_path / "there", uploader="none")
    with Store(local, keep=Keep(), tier=tier) as store:
        for step in (1, 2, 3):
            store.save(model=model(step), step=step)
    return tmp_path / "there"


def test_it_copies_what_waits(local, there):
    said = run("upload", local, there).stdout

    assert said.count(f"{local} -> {there}: copied 2 files") == 3
    assert Store(there).steps() == (1, 2, 3)
    assert waiting_in(local) == []
    assert "nothing waits" in run("upload", local, there).stdout
    assert "nothing waits" in run("upload", local).stdout


def test_without_a_tier_it_asks_before_it_believes_the_journal(local, there):
    done = run("upload", local, code=2)
    assert f"3 saves (steps 1, 2, 3) wait to be copied to {there}" in done.stderr
    assert "name the tier, or give --yes" in done.stderr
    assert not there.exists()

    run("upload", local, "--yes")
    assert Store(there).steps() == (1, 2, 3)


def test_json_says_what_was_copied_and_what_waits(local, there):
    said = json.loads(run("upload", local, "--dry-run", "--json").stdout)
    waits = [{"tier": str(there), "saves": 3, "steps": [1, 2, 3], "rewinds": []}]
    assert (said["copied"], said["waiting"]) == ([], waits)

    said = json.loads(run("upload", local, there, "--json").stdout)
    assert [one["step"] for one in said["copied"]] == [1, 2, 3]
    assert said["waiting"] == []


def test_it_takes_the_options_of_the_storage(local, moto_server):
    url = moto_server.url("dante")
    with Store(local, tier=Tier(url, uploader="none")) as store:
        store.save(model=model(1))
    options = [
        word
        for key, value in moto_server.storage_options.items()
        for word in ("--storage-option", f"{key}={value}")
    ]
    run("upload", local, "--yes", *options)

    assert Store(url, storage_options=moto_server.storage_options).generations() == (1,)


def test_what_fails_has_its_exit_code_and_stays(local, moto_server):
    url = "s3://there-is-none-3/dante"
    with Store(local, tier=Tier(url, uploader="none")) as store:
        store.save(model=model(1))
    os_options = [f"{key}={value}" for key, value in moto_server.storage_options.items()]
    words = [word for option in os_options for word in ("--storage-option", option)]
    done = run("upload", local, "--yes", *words, code=3)

    assert "there is no bucket" in done.stderr
    assert len(waiting_in(local)) == 1


def test_one_damaged_state_stops_no_other(local, there):
    path = local / "step-00000002/model.pt"
    path.write_bytes(bytes(path.stat().st_size))
    done = run("upload", local, there, code=4)

    assert "model.pt" in done.stderr
    assert Store(there).steps() == (1, 3)
    assert len(waiting_in(local)) == 1


def test_another_programs_uploads_are_left_to_it(local, there):
    with Journal(connect(local)).alone():
        done = run("upload", local, there, code=6)
    assert "another program is copying what waits in" in done.stderr


def test_what_nobody_wants_any_more_is_forgotten(local, there):
    assert "3 wait no longer" in run("upload", local, "--forget").stdout
    assert waiting_in(local) == []
    assert not there.exists()
    said = json.loads(run("upload", local, there, "--forget", "--json").stdout)
    assert said["forgotten"] == 0
    assert "--forget goes with neither" in run("upload", local, "--forget", "--yes", code=2).stderr


def test_several_tiers_have_to_be_named(local, there, tmp_path):
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "b", uploader="none")) as store:
        store.save(model=model(4), step=4)
    done = run("upload", local, "--yes", code=2)
    assert f"for several tiers: {tmp_path / 'b'}, {there}; name one" in done.stderr
    assert "1 save (step 4) waits" in run("upload", local, there).stdout


def test_the_journal_holds_no_password_of_a_url(local):
    tier = Tier("ftp://me:hush@localhost/x", uploader="none")
    store = Store(local, keep=Keep(), tier=tier)
    store.save(model=model(1), step=1)
    (name,) = waiting_in(local)
    done = run("upload", local, "--yes", code=1)

    assert '"ftp://localhost/x"' in (local / JOURNAL / name).read_text()
    assert "hush" not in (local / JOURNAL / name).read_text() + done.output + repr(store.uploads())


def test_ls_and_inspect_say_what_waits(local, there):
    for command in ("ls", "inspect"):
        done = run(command, local)
        assert f"3 saves (steps 1, 2, 3) wait to be copied to {there}" in done.stderr
        assert "wait" not in done.stdout
        assert json.loads(run(command, local, "--json").stdout)
        assert "wait" not in run("-q", command, local).stderr


def test_a_folder_of_checkpoints_lists_no_journal(local, there):
    run("upload", local, there)
    with Store(local, keep=Keep(), tier=Tier(there, uploader="none")) as store:
        store.save(model=model(4), step=4)
    assert ".ckptstore-uploads" in os.listdir(local)

    assert ".ckptstore" not in run("ls", local.parent).stdout
    assert "nothing needs mending" in run("doctor", local).stdout


def test_what_was_gone_back_to_removes_nothing_unasked(local, there):
    run("upload", local, there)
    Store(local, keep=Keep(), tier=Tier(there, uploader="none")).rewind(1)
    done = run("upload", local, there, code=2)
    assert f"what is later than step 1 and not here goes in {there}" in done.stderr
    assert Store(there).steps() == (1, 2, 3)
    assert json.loads(run("upload", local, "--dry-run", "--json").stdout)["waiting"] == [
        {"tier": str(there), "saves": 0, "steps": [], "rewinds": [1]}
    ]

    run("upload", local, there, "--yes")
    assert Store(there).steps() == (1,)


def test_a_tier_whose_url_held_a_secret_has_to_be_named(local):
    tier = Tier("http://localhost:9/x?token=hush", uploader="none")
    Store(local, keep=Keep(), tier=tier).save(model=model(1), step=1)
    done = run("upload", local, "--yes", code=2)

    assert "whose URL held a password, which no journal holds; name the tier" in done.stderr
    assert "hush" not in done.output
