"""metrics.jsonl: lines for people, committed, proved and carried like every other file."""

from __future__ import annotations

import json
import math

import pytest
import torch

import ckptstore
from ckptstore.errors import ConflictError, CorruptionError, NotFoundError, UnsupportedError

ROWS = [{"step": 50, "val_loss": 2.5, "note": "ä\u2028\n"}, {"step": 100, "val_loss": 1.25}]


def saved(where, rows=ROWS, **more):
    return ckptstore.save(where, model={"w": torch.zeros(2)}, step=100, metrics_log=rows, **more)


def test_it_is_a_line_of_json_for_each_row(tmp_path):
    saved(tmp_path / "x")

    text = (tmp_path / "x/metrics.jsonl").read_text("utf-8")
    assert [json.loads(line) for line in text.split("\n")[:-1]] == ROWS
    assert '"ä\u2028\\n"' in text


def test_it_comes_back_from_every_storage(location):
    saved(location.url, storage_options=location.storage_options)

    found = ckptstore.open(location.url, storage_options=location.storage_options)
    assert found.load_metrics_log() == tuple(ROWS)


@pytest.mark.parametrize("keep", [None, ckptstore.Keep(last=2)])
def test_a_save_in_the_background_has_the_rows_of_its_moment(tmp_path, keep):
    rows = [dict(ROWS[0])]
    with ckptstore.Store(tmp_path / "x", keep=keep) as store:
        done = store.save_async(model={"w": torch.zeros(2**23)}, step=1, metrics_log=rows)
        rows[0]["step"] = 7
        rows.append(ROWS[1])

    assert done.result().load_metrics_log() == (ROWS[0],)


def test_without_rows_there_is_no_file(tmp_path):
    assert saved(tmp_path / "x", rows=()).load_metrics_log() == ()
    assert not (tmp_path / "x/metrics.jsonl").exists()


def test_a_save_without_rows_takes_those_of_the_last_one_away(tmp_path):
    saved(tmp_path / "x")
    saved(tmp_path / "x", rows=())

    assert not (tmp_path / "x/metrics.jsonl").exists()


def test_numbers_that_json_lacks_are_null(tmp_path):
    found = saved(tmp_path / "x", rows=[{"loss": math.nan, "more": [math.inf, 1.0]}])

    assert found.load_metrics_log() == ({"loss": None, "more": [None, 1.0]},)


@pytest.mark.parametrize(
    ("row", "said"),
    [([1], "row 1 is a list, not a JSON object"), ({"a": object()}, "row 1 cannot be written")],
)
def test_what_is_no_json_is_refused_before_anything_is_written(tmp_path, row, said):
    with pytest.raises(UnsupportedError, match=f"metrics.jsonl: {said}"):
        saved(tmp_path / "x", rows=[row])

    assert not list((tmp_path / "x").glob("**/model*"))


def test_no_opening_reads_it(tmp_path):
    saved(tmp_path / "x", rows=[{"step": step} for step in range(20_000)])

    assert (tmp_path / "x/metrics.jsonl").stat().st_size > 200_000
    assert (tmp_path / "x/manifest.json").stat().st_size < 10_000


def test_sync_carries_it_and_a_copy_for_inference_leaves_it(tmp_path):
    saved(tmp_path / "x")

    ckptstore.sync(tmp_path / "x", tmp_path / "all")
    ckptstore.sync(tmp_path / "x", tmp_path / "some", optimizer=False)

    assert ckptstore.open(tmp_path / "all").load_metrics_log() == tuple(ROWS)
    assert ckptstore.open(tmp_path / "some").load_metrics_log() == ()


def test_sync_puts_it_over_nobody_elses_file(tmp_path):
    saved(tmp_path / "x")
    (tmp_path / "y").mkdir()
    (tmp_path / "y/metrics.jsonl").write_text("mine\n")

    with pytest.raises(ConflictError, match="'metrics.jsonl' that is no checkpoint's"):
        ckptstore.sync(tmp_path / "x", tmp_path / "y")

    assert (tmp_path / "y/metrics.jsonl").read_text() == "mine\n"


def test_a_folder_of_plain_files_has_it_too(tmp_path):
    saved(tmp_path / "x")
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("model.pt", "metrics.jsonl"):
        (plain / name).write_bytes((tmp_path / "x" / name).read_bytes())

    found = ckptstore.open(plain)
    ckptstore.sync(plain, tmp_path / "copy")
    ckptstore.convert(plain, tmp_path / "converted")

    assert found.load_metrics_log() == tuple(ROWS)
    assert "metrics.jsonl" in found.files()
    for name in ("copy", "converted"):
        assert ckptstore.open(tmp_path / name).load_metrics_log() == tuple(ROWS)


def test_a_damaged_one_is_found_by_verify_and_by_whoever_reads_it(tmp_path):
    found = saved(tmp_path / "x")
    path = tmp_path / "x/metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b"2.5", b"2.4"))  # In place: the same file.

    report = found.verify()

    assert not report.sound
    assert [file.name for file in report.files if file.status == "damaged"] == ["metrics.jsonl"]
    with pytest.raises(CorruptionError, match="metrics.jsonl in .* chunk 0"):
        found.load_metrics_log()
    assert torch.equal(found.load_model()["w"], torch.zeros(2))


def test_an_absent_one_is_an_error_for_whoever_asks_for_it(tmp_path):
    saved(tmp_path / "x")
    for path in (tmp_path / "x").glob("**/metrics*.jsonl"):
        path.unlink()
    found = ckptstore.open(tmp_path / "x")

    with pytest.raises(NotFoundError, match="metrics"):
        found.load_metrics_log()
    assert found.verify().sound


def test_lines_that_are_no_json_are_named(tmp_path):
    saved(tmp_path / "x")
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "model.pt").write_bytes((tmp_path / "x/model.pt").read_bytes())
    (plain / "metrics.jsonl").write_text('{"step": 1}\n\n{"step": ')

    with pytest.raises(CorruptionError, match="line 3 of metrics.jsonl in .* is not valid JSON"):
        ckptstore.open(plain).load_metrics_log()


def test_a_single_file_has_no_room_for_it_and_that_is_said(tmp_path):
    saved(tmp_path / "x")

    done = ckptstore.convert(tmp_path / "x", tmp_path / "one.pt", format="legacy")

    assert "metrics.jsonl" in (done.left_out or ())
    assert ckptstore.open(tmp_path / "one.pt").load_metrics_log() == ()
