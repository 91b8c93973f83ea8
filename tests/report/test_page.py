"""The page: whole, alone, safe whatever the checkpoint says, and with everything in it."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest
import torch

import ckptstore
from ckptstore.errors import CorruptionError, UnsafeError
from ckptstore.report import gather, html_of
from ckptstore.report.markup import Html, tag, text

from .conftest import Parsed, Report, transformer

EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'>&lt;</style></title><!--\u202e\x1b[2J"
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_all_of_a_checkpoint_is_there(report: Report, dante: Path, later: Path) -> None:
    page = report(later, dante)

    titles = [section["id"] for section in page.named("section")]
    assert titles == ["safety", "difference", "size", "values", "config", "tokenizer", "training",
                      "files"]  # fmt: skip
    assert [link["href"] for link in page.named("a")] == [f"#{title}" for title in titles]
    assert report(dante).named("section")[1]["id"] == "curves"


def test_the_head_says_what_it_is(report: Report, dante: Path) -> None:
    page = report(dante)

    checkpoint = ckptstore.open(dante)
    total = sum(info.size for info in checkpoint.files().values())
    for words in (
        str(dante), "1,000", "bundle, generation 1", "val_loss", "1.25", "ckptstore 0.1.0",
        f"{total / 1000:.3g} kB", "n_layer", "AdamW", "Each chunk was held against the manifest",
        checkpoint.files()["model.pt"].sha256, "5 characters",
    ):  # fmt: skip
        assert words is not None
        assert words in page.text, words


def test_nothing_outside_is_referred_to(report: Report, dante: Path, later: Path) -> None:
    page = report(later, dante)

    for name, attributes in page.elements:
        assert name not in ("script", "link", "iframe", "object", "embed", "base", "form", "img")
        for key, value in attributes.items():
            assert not key.startswith("on")
            assert key not in ("src", "srcset", "action", "data", "xlink:href")
            if key == "href":
                assert (value or "").startswith("#")
            if key == "style":
                assert "url" not in (value or "")
    assert not re.search(r"url\(|@import|https?:|//", page.style)


def test_the_policy_forbids_all_but_its_own_style(report: Report, dante: Path) -> None:
    first, *_ = [meta for meta in report(dante).named("meta") if "http-equiv" in meta]

    assert first == {"http-equiv": "Content-Security-Policy", "content": POLICY}


def hostile(where: Path) -> Path:
    """Save a checkpoint whose every text would be markup."""
    ckptstore.save(
        where,
        model={EVIL: torch.ones(3), f"h.0.{EVIL}": torch.randn(40, 40), "h.1.x": torch.ones(2, 2)},
        config={EVIL: EVIL, "more": {EVIL: [EVIL] * 20}},
        tokenizer={"token_kind": "<b>", "chars": [EVIL, "<", '"'], EVIL: EVIL},
        state={"<b>": {"x": torch.ones(1)}},
        training_state={"<i>": "<i>"},
        step=1,
        metrics={EVIL: 1.0},
        metrics_log=[{"step": n, EVIL: n, "loss</style>": n * n} for n in range(5)],
    )
    return where


def test_a_stranger_s_text_is_never_markup(report: Report, tmp_path: Path) -> None:
    one, two = hostile(tmp_path / "<b>one"), tmp_path / "two"
    ckptstore.save(two, model={EVIL: torch.zeros(3), f"{EVIL}2": torch.ones(1)})

    page, other = report(one, two), report(two, one)

    for found in (page, other):
        assert not {name for name, _ in found.elements} & {"script", "img", "b>"}
        assert len(found.named("style")) == 1
        assert "alert(1)" not in found.style
        assert "\u202e" not in found.text
        assert "\x1b" not in found.text
    plain = Parsed(html_of(gather(str(one), weights=False)))
    assert EVIL.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b") in plain.text
    assert {name for name, _ in plain.elements} <= {name for name, _ in page.elements} | {"p"}


def test_only_markup_is_markup() -> None:
    assert tag("p", "<b>", Html("<i></i>"), class_='"x') == (
        '<p class="&quot;x">&lt;b&gt;<i></i></p>'
    )
    assert text(Html("<b>")) == "&lt;b&gt;"
    assert len(text("x" * 10_000)) == 2000


def test_a_page_has_a_bound_whatever_a_checkpoint_holds(tmp_path: Path) -> None:
    ckptstore.save(
        tmp_path / "x",
        model={f"h.{n}.{m}.w{'x' * 300}": torch.ones(1) for n in range(20) for m in range(60)},
        config={f"field {n}": "x" * 5000 for n in range(2000)},
        tokenizer={"token_kind": "char", "chars": [chr(0x4E00 + n) for n in range(9_000)]},
        metrics_log=[{f"m{k}": k * n for k in range(100)} for n in range(2000)],
    )

    page = html_of(gather(str(tmp_path / "x")))

    Parsed(page)
    assert len(page) < 4_000_000


def test_histograms_of_the_page_count_every_value(dante: Path) -> None:
    found = gather(str(dante))

    for name, info in found.tensors.items():
        histogram = found.statistics[name].histogram
        assert histogram is not None
        assert sum(histogram.counts) == torch.Size(info.shape).numel()


def test_without_weights_none_are_read(
    report: Report, dante: Path, later: Path, monkeypatch
) -> None:
    from ckptstore.storage.local import LocalStorage

    opened: list[str] = []
    before = LocalStorage.open
    monkeypatch.setattr(
        LocalStorage, "open", lambda self, name: opened.append(name) or before(self, name)
    )

    page = report(later, dante, weights=False)

    assert not [name for name in opened if name.endswith(".pt")]
    assert "values" not in [section["id"] for section in page.named("section")]
    assert "2 changed" in page.text


def test_values_that_are_no_numbers_are_wrong_and_named(report: Report, tmp_path: Path) -> None:
    model = {"a": torch.ones(3), "b": torch.tensor([1.0, float("nan"), float("inf")])}
    ckptstore.save(tmp_path / "x", model=model)

    page = report(tmp_path / "x")

    assert "Values that are not finite" in page.text
    assert "b: 1 NaN, 1 infinite" in page.text


def test_hand_edits_and_ties_are_told(report: Report, tmp_path: Path) -> None:
    shared = torch.ones(4)
    ckptstore.save(tmp_path / "x", model={"tied.a": shared, "tied.b": shared}, config={"n": 1})
    (tmp_path / "x/config.json").write_text(json.dumps({"n": 2}))

    page = report(tmp_path / "x")

    for words in ("Edited by hand", "config.json changed", "tied.a = tied.b", "1 tied tensor left"):
        assert words in page.text
    assert "Bytes that nobody sees" not in page.text


def test_bytes_that_belong_to_no_tensor_are_told(report: Report, tmp_path: Path) -> None:
    torch.save({"view": torch.ones(1000)[:10]}, tmp_path / "model.pt")

    page = report(tmp_path)

    assert "Bytes that nobody sees" in page.text
    assert "view: 3.96 kB" in page.text


def test_a_folder_without_a_manifest_is_called_not_verified(
    report: Report, dante: Path, tmp_path: Path
) -> None:
    (tmp_path / "plain").mkdir()
    for name in ("model.pt", "config.json"):
        (tmp_path / "plain" / name).write_bytes((dante / name).read_bytes())

    page = report(tmp_path / "plain")

    assert "Not verified" in page.text
    assert "No manifest says when" in page.text


def test_proving_all_is_told_file_by_file(report: Report, dante: Path) -> None:
    page = report(dante, verify=True)

    assert "Every byte proved" in page.text
    assert "metrics.jsonl generation 1 ok sha256" in page.text


@pytest.mark.parametrize("verify", [True, False])
def test_damage_is_in_the_report_and_the_rest_of_it_too(dante: Path, verify: bool) -> None:
    path = next(dante.glob(".ckptstore/*/model*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    found = gather(str(dante), verify=verify)
    page = Parsed(html_of(found))

    assert isinstance(found.fault, CorruptionError)
    assert "Damaged" in page.text
    assert "model.pt in" in page.text
    assert {"size", "curves"} <= {section["id"] for section in page.named("section")}
    assert "values" not in {section["id"] for section in page.named("section")}


def test_a_pickle_that_would_run_code_is_told_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir()
    with zipfile.ZipFile(tmp_path / "evil/model.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02cos\nsystem\nX\x04\0\0\0truetR.")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")

    found = gather(str(tmp_path / "evil"))
    page = Parsed(html_of(found))

    assert isinstance(found.fault, UnsafeError)
    assert "Not safe to read" in page.text
    assert "os.system" in page.text
    assert "Pickles are safe" not in page.text


def test_a_history_has_the_curves_of_its_steps(report: Report, tmp_path: Path) -> None:
    with ckptstore.Store(tmp_path / "x", keep=ckptstore.Keep()) as store:
        for step in (100, 200, 300):
            store.save(model={"w": torch.ones(2)}, step=step, metrics={"val_loss": 300 / step})

    page = report(tmp_path / "x", step=200)

    (svg,) = [s for s in page.named("svg") if "val_loss" in (s.get("aria-label") or "")]
    assert svg["aria-label"] == "val_loss: 3 values, 3 at step 100, 1 at step 300"


def test_a_legacy_file_has_a_report(report: Report) -> None:
    page = report(Path(__file__).parents[1] / "fixtures/legacy_char/latest.pt")

    assert "legacy" in page.text
    assert "values" in [section["id"] for section in page.named("section")]


@pytest.mark.parametrize(
    "model",
    [{}, {"scalar": torch.tensor(1.0)}, {"empty": torch.ones(0)}, {"n": torch.arange(3)},
     {"c": torch.ones(2, dtype=torch.complex64)}, {"b": torch.tensor([True, False])}],
)  # fmt: skip
def test_any_model_has_a_report(report: Report, tmp_path: Path, model: dict) -> None:
    ckptstore.save(tmp_path / "x", model=model)

    assert "Where the bytes are" in report(tmp_path / "x").text


def test_every_figure_says_in_words_what_it_shows(report: Report, dante: Path) -> None:
    figures = [attributes for _, attributes in report(dante).elements if "role" in attributes]

    assert len(figures) > len(transformer())
    assert all(figure["aria-label"] for figure in figures)


def test_the_age_is_that_at_the_time_of_the_report(report: Report, dante: Path) -> None:
    from dataclasses import replace
    from datetime import timedelta

    found = gather(str(dante), weights=False)
    old = replace(found, made=found.made + timedelta(hours=3, minutes=5))

    assert "3 hours before this report" in Parsed(html_of(old)).text
