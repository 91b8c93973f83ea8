"""G2: uploads that nobody finished are found and ended, and never a live writer's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import newest_generation
from ckptstore.commit.repair import repair
from ckptstore.commit.save import save_generation, save_step
from ckptstore.errors import StorageError
from ckptstore.storage import connect, s3unfinished
from ckptstore.storage.base import Storage
from ckptstore.testing import S3Proxy

DEAD = "model.deaddeaddead.pt"
EVERYTHING = -10.0  # S3 counts whole seconds.


def begin(server: Any, place: Storage, *names: str) -> None:
    """Begin uploads, send a part of each, and never finish them."""
    bucket, _, prefix = place.location.removeprefix("s3://").partition("/")
    client = server.client()
    for name in names:
        target = {"Bucket": bucket, "Key": f"{prefix}/{name}"}
        upload = client.create_multipart_upload(**target)["UploadId"]
        client.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"half")
    client.close()


def uploads(server: Any, place: Storage) -> list[str]:
    """Return what was begun and not ended, by names below the location."""
    prefix = place.location.removeprefix("s3://").partition("/")[2] + "/"
    return sorted(key.removeprefix(prefix) for key in server.uploads(place.location))


@pytest.fixture
def place(s3_server: Any) -> Storage:
    return connect(s3_server.url(), s3_server.storage_options)


def test_where_nothing_was_begun_there_is_nothing(place, save_of):
    save_generation(place, save_of("a"))

    assert place.unfinished() == ()


def test_an_upload_that_can_no_longer_count_is_ended_at_once(s3_server, place, save_of):
    save_generation(place, save_of("a"))
    save_generation(place, save_of("b"))
    begin(s3_server, place, f".ckptstore/00000001/{DEAD}", f".ckptstore/00000002/{DEAD}")

    assert repair(place, dry_run=True) == (
        f"would give up the unfinished upload of .ckptstore/00000001/{DEAD}",
        f"would give up the unfinished upload of .ckptstore/00000002/{DEAD}",
    )
    assert len(uploads(s3_server, place)) == 2
    assert repair(place) == (
        f"gave up the unfinished upload of .ckptstore/00000001/{DEAD}",
        f"gave up the unfinished upload of .ckptstore/00000002/{DEAD}",
    )

    assert place.unfinished() == ()


def test_uploads_that_may_still_count_go_by_age(rclone_server, save_of):
    place = connect(rclone_server.url(), rclone_server.storage_options)
    save_generation(place, save_of("a"))
    begin(rclone_server, place, f".ckptstore/00000002/{DEAD}", f"step-00000001/{DEAD}", "model.pt")

    assert [upload.age is not None and -5 < upload.age < 60 for upload in place.unfinished()] == [
        True,
        True,
        True,
    ]
    assert repair(place) == ()
    assert len(uploads(rclone_server, place)) == 3
    assert len(repair(place, older_than=EVERYTHING)) == 3

    assert place.unfinished() == ()


def test_where_the_dates_cannot_be_believed_an_upload_is_left_alone(moto_server, save_of):
    place = connect(moto_server.url(), moto_server.storage_options)
    save_generation(place, save_of("a"))
    begin(moto_server, place, f".ckptstore/00000002/{DEAD}")

    assert [upload.age for upload in place.unfinished()] == [None]
    for older_than in (86_400.0, EVERYTHING):
        assert repair(place, older_than=older_than) == (
            f"left alone: the unfinished upload of .ckptstore/00000002/{DEAD}, for the storage "
            "does not say credibly when it began; a lifecycle rule of the bucket ends such uploads",
        )

    assert uploads(moto_server, place) == [f".ckptstore/00000002/{DEAD}"]


def test_uploads_of_others_are_nobodys_business(s3_server, place, save_of):
    save_generation(place, save_of("a"))
    save_step(place, save_of("b", step=5), overwrite=False)
    theirs = ["data.bin", "other/.ckptstore/00000001/" + DEAD, ".ckptstore/notes/x.bin"]
    theirs += ["step-by-step/model.pt", "step-00000005/film.mp4", ".ckptstore/00000001/film.mp4"]
    begin(s3_server, place, *theirs)
    begin(s3_server, connect(f"{place.location}2", s3_server.storage_options), "model.pt")

    assert repair(place, older_than=EVERYTHING) == ()

    assert len(uploads(s3_server, place)) == len(theirs) + 1


def test_a_save_whose_upload_is_under_way_is_not_disturbed(s3_server, place, save_of):
    save_generation(place, save_of("a"))
    large = memoryview(bytes(range(256)) * 2**16)

    def write(files: Any) -> None:
        files.write_text("config.json", "{}\n")
        with files.create("model.pt") as sink:
            sink.write(large)
            assert len(uploads(s3_server, place)) == 1
            repair(place)

    state = save_generation(place, replace(save_of("b"), write=write))

    assert newest_generation(place).folder == state.folder
    with CommittedFiles(place, state, edits={}).open("model.pt") as file:
        assert file.read() == large


def test_a_writer_whose_upload_was_given_up_is_told_who_may_have_done_it(rclone_server):
    place = connect(rclone_server.url(), rclone_server.storage_options)

    def write() -> None:
        with place.writer("model.pt") as sink:
            sink.write(memoryview(bytes(9 * 2**20)))
            [upload] = place.unfinished()
            place.give_up(upload)
            place.give_up(upload)
            sink.write(memoryview(bytes(9 * 2**20)))

    with pytest.raises(StorageError, match="somebody gave the upload up .* lifecycle rule"):
        write()

    assert place.entry("model.pt") is None


def test_more_uploads_than_one_answer_holds_are_all_found(rclone_server, monkeypatch):
    monkeypatch.setattr(s3unfinished, "_PAGE", 2)
    place = connect(rclone_server.url(), rclone_server.storage_options)
    begin(rclone_server, place, "a", "b", "c", "d", "e")

    assert [upload.name for upload in place.unfinished()] == ["a", "b", "c", "d", "e"]


def test_who_may_not_list_uploads_hears_so_and_the_rest_is_mended(moto_server, save_of):
    options = moto_server.storage_options
    with S3Proxy(moto_server.endpoint, options) as proxy:
        place = connect(moto_server.url(), proxy.storage_options)
        save_generation(place, save_of("a"))
        place.create(f".ckptstore/00000001/{DEAD}", b"half")
        proxy.harm("GET", "uploads", "AccessDenied", times=None)

        said = repair(place)

    assert said[0] == f"removed the leftover .ckptstore/00000001/{DEAD}"
    assert said[1].startswith("left alone: uploads that were not finished, if there are any:")
    assert "access denied" in said[1]
