"""What a checkpoint says of itself: its head, config, tokenizer, training and files."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ckptstore.report.findings import Findings
from ckptstore.report.markup import Html, tag
from ckptstore.structure import kind_of
from ckptstore.wording import ago, number, plain, plural, size, value_text, when

__all__ = ["brief", "config", "files", "head", "name_of", "tokenizer", "training"]

_MOST_FIELDS = 200
_MOST_LETTERS = 400
_MOST_SYMBOLS = 400


def name_of(findings: Findings) -> str:
    """Return what to call the checkpoint: the last part of its location."""
    location = findings.checkpoint.location.rstrip("/\\")
    return location.replace("\\", "/").rpartition("/")[2] or location


def head(findings: Findings) -> Html:
    """Return title, location and the few numbers that matter most."""
    checkpoint, tensors = findings.checkpoint, findings.tensors
    parameters = sum(math.prod(info.shape) for info in tensors.values())
    dtypes = Counter(info.dtype for info in tensors.values()).most_common(3)
    total = sum(info.size for info in findings.files.values() if info.present)
    generation = checkpoint.generation
    format_ = checkpoint.format + (f", generation {generation:,}" if generation else "")
    measured = [(name, number(n)) for name, n in checkpoint.metrics.items()]
    tiles = [
        ("Parameters", _short_count(parameters), f"{parameters:,} in {len(tensors):,} tensors"),
        ("Size", size(total), plural(len(findings.files), "file")),
        ("Step", "-" if checkpoint.step is None else f"{checkpoint.step:,}", format_),
        *((name, value, "measured at the save") for name, value in measured[:2]),
        ("Type", dtypes[0][0] if dtypes else "-", _other_types(dtypes)),
    ]
    return tag(
        "header",
        tag("p", "Checkpoint report", class_="over"),
        tag("h1", name_of(findings)),
        tag("p", tag("code", checkpoint.location), class_="where"),
        tag("p", _saved(findings), class_="saved"),
        tag("dl", *(_tile(*tile) for tile in tiles), class_="tiles"),
    )


def config(findings: Findings) -> Html:
    """Return config.json as a table."""
    return _fields(findings.checkpoint.config, "It has no config.")


def training(findings: Findings) -> Html:
    """Return training_state.json, metrics, and the optimizer as its state dict describes it."""
    checkpoint = findings.checkpoint
    fields: dict[str, Any] = {**(checkpoint.training_state or {})}
    fields |= {f"metric {name}": value for name, value in checkpoint.metrics.items()}
    optimizer = findings.structure.get("optimizer")
    if optimizer is not None and optimizer.groups is not None:
        fields["optimizer"] = kind_of(optimizer) or "of a kind that is not known"
        for at, group in enumerate(optimizer.groups[:4]):
            shown = {k: v for k, v in group.values.items() if v not in (None, False)}
            told = ", ".join(f"{key} {value_text(value)}" for key, value in shown.items())
            fields[f"group {at}"] = f"{plural(group.params, 'parameter')}; {told}"
        fields |= {f"keeps {slot}": count for slot, count in optimizer.slots.items()}
    return _fields(fields or None, "It has no training state: a copy for inference.")


def tokenizer(findings: Findings) -> Html:
    """Return what is known of the tokenizer, the characters of a small vocabulary too."""
    state = findings.checkpoint.tokenizer_state
    if state is None:
        return tag("p", "It has no tokenizer.", class_="none")
    fields: dict[str, Any] = {"kind": state.get("token_kind")}
    if findings.vocabulary:
        fields["vocabulary"] = findings.vocabulary
    if findings.checkpoint.fingerprint:
        fields["fingerprint"] = findings.checkpoint.fingerprint
    chars = state.get("chars")
    listed = isinstance(chars, list)
    fields |= {
        key: value
        for key, value in state.items()
        if key != "token_kind" and not (key == "chars" and listed)
    }
    parts = [_fields(fields, "")]
    if isinstance(chars, list) and chars:
        shown = (tag("kbd", _visible(char)) for char in chars[:_MOST_SYMBOLS])
        left = len(chars) - _MOST_SYMBOLS
        rest = tag("span", f" and {left:,} more") if left > 0 else None
        parts.append(tag("p", *shown, rest, class_="symbols"))
    return tag("div", *parts)


def files(findings: Findings) -> Html:
    """Return the files with sizes and digests."""
    rows = [
        tag(
            "tr",
            tag("th", tag("code", name), scope="row"),
            tag("td", size(info.size) if info.present else "absent"),
            tag("td", tag("code", info.sha256 or "not recorded", class_="digest")),
        )
        for name, info in list(findings.files.items())[:_MOST_FIELDS]
    ]
    head_ = tag("tr", *(tag("th", word) for word in ("File", "Size", "SHA-256")))
    table = tag("table", tag("thead", head_), tag("tbody", *rows), class_="numbers files")
    return tag("div", table, class_="scroll")


def _saved(findings: Findings) -> str:
    checkpoint = findings.checkpoint
    if not checkpoint.created:
        return "No manifest says when and by what it was saved."
    age = ago(checkpoint.created, findings.made)
    by = f" by {checkpoint.writer}" if checkpoint.writer else ""
    passed = f", {age.removesuffix(' ago')} before this report" if age else ""
    return f"Saved {when(checkpoint.created)}{by}{passed}."


def _tile(name: str, value: str, about: str) -> Html:
    return tag("div", tag("dt", name), tag("dd", value), tag("dd", about, class_="about"))


def _other_types(dtypes: list[tuple[str, int]]) -> str:
    if len(dtypes) < 2:
        return "all tensors"
    return ", ".join(f"{count:,} {dtype}" for dtype, count in dtypes)


def _short_count(count: int) -> str:
    for unit, length in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**4)):
        if count >= length:
            base = 1000 if unit == "k" else length
            return f"{count / base:.3g}{unit}"
    return f"{count:,}"


def _fields(values: Mapping[str, Any] | None, otherwise: str) -> Html:
    if not values:
        return tag("p", otherwise or "Nothing.", class_="none")
    shown = list(values.items())[:_MOST_FIELDS]
    rows = [tag("tr", tag("th", key, scope="row"), _value(value)) for key, value in shown]
    left = len(values) - len(shown)
    if left > 0:
        rows.append(tag("tr", tag("td", f"and {left:,} more", colspan=2)))
    return tag("table", tag("tbody", *rows), class_="facts")


def brief(value: object) -> str:
    """Return a value of JSON as text, a number in six digits."""
    return f"{value:.6g}" if isinstance(value, float) else value_text(value)


def _value(value: object) -> Html:
    if isinstance(value, (Mapping, list, tuple)) and value:
        whole = json.dumps(plain(value), ensure_ascii=False)
        if len(whole) > 60:
            lines = _lines(plain(value))
            return tag("td", tag("pre", "".join(lines)[:_MOST_LETTERS]))
    return tag("td", brief(value)[:_MOST_LETTERS])


def _lines(value: Any) -> Iterable[str]:
    # `markup.text` shows line breaks as escapes, since a stranger's are: so there are none.
    yield json.dumps(value, ensure_ascii=False)


def _visible(char: object) -> str:
    text = str(char)[:12]
    return {" ": "␣", "\n": "↵", "\t": "⇥"}.get(text, text)
