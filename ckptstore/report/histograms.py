"""What the values of each tensor are like: a small histogram, and the numbers below it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ckptstore.manifest import TensorInfo
from ckptstore.report.markup import Html, joined, tag
from ckptstore.statistics import Histogram, Statistics
from ckptstore.wording import number, plural, shape_text

__all__ = ["chosen", "histograms", "outline"]

_MOST = 240
_HEIGHT = 40
_OPEN = 36  # As many histograms are to be seen without a click, at least one group of them.


def chosen(tensors: Mapping[str, TensorInfo], most: int = _MOST) -> list[str]:
    """Return the tensors that are drawn: all, or the largest, in the order of the file."""
    ranked = sorted(tensors, key=lambda name: -math.prod(tensors[name].shape))
    kept = {*ranked[:most]}
    return [name for name in tensors if name in kept]


def outline(histogram: Histogram) -> str:
    """Return the path around the bars, one unit wide each and 40 high for the highest."""
    highest = max(histogram.counts)
    parts = [f"M0 {_HEIGHT}"]
    for at, count in enumerate(histogram.counts, start=1):
        top = _HEIGHT * (1 - count / highest)
        if count and top > _HEIGHT - 1:
            top = _HEIGHT - 1  # One value among millions is still to be seen.
        parts.append(f"V{top:.4g}H{at}")
    return "".join([*parts, f"V{_HEIGHT}Z"])


def histograms(
    tensors: Mapping[str, TensorInfo], statistics: Mapping[str, Statistics]
) -> list[Html]:
    """Return the figures by layer, and a table of all their numbers."""
    names = [name for name in chosen(tensors) if name in statistics]
    parts = []
    drawn = 0
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(_layer(name), []).append(name)
    for layer, few in layers.items():
        cards = (_card(name, layer, tensors[name], statistics[name]) for name in few)
        values = sum(math.prod(tensors[name].shape) for name in few)
        head = tag(
            "summary",
            tag("b", layer or "outside of the layers"),
            tag("small", f"{plural(len(few), 'tensor')}, {plural(values, 'value')}"),
        )
        grid = tag("div", *cards, class_="cards")
        parts.append(tag("details", head, grid, open=drawn == 0 or drawn + len(few) <= _OPEN))
        drawn += len(few)
    if len(names) < len(tensors):
        left = plural(len(tensors) - len(names), "smaller tensor")
        parts.append(tag("p", f"{left} without a figure.", class_="note"))
    parts.append(_table(names, tensors, statistics))
    return parts


def _layer(name: str) -> str:
    """Return what a tensor is shown below: its numbered layer, or its first module."""
    parts = name.split(".")
    for at, part in enumerate(parts[:-1]):
        if part.isdecimal() and at:
            return ".".join(parts[: at + 1])
    return "" if len(parts) < 3 else parts[0]


def _card(name: str, layer: str, info: TensorInfo, values: Statistics) -> Html:
    label = name.removeprefix(f"{layer}.") if layer else name
    return tag(
        "figure",
        tag("figcaption", label, title=name),
        _figure(name, values),
        tag(
            "div",
            tag("span", number(values.minimum)),
            tag("span", shape_text(info.shape), class_="shape"),
            tag("span", number(values.maximum)),
            class_="ends",
        ),
        *_marks(values),
        class_="card",
    )


def _figure(name: str, values: Statistics) -> Html:
    histogram = values.histogram
    if histogram is None:
        return tag("div", "no finite values", class_="none")
    said = (
        f"Histogram of {name}: from {number(values.minimum)} to {number(values.maximum)}, "
        f"mean {number(values.mean)}, standard deviation {number(values.std)}"
    )
    zero = -histogram.low / histogram.width if histogram.width else -1.0
    inside = 0 < zero < len(histogram.counts)
    return tag(
        "svg",
        tag("title", f"mean {number(values.mean)}, standard deviation {number(values.std)}"),
        tag("path", d=Html(outline(histogram)), class_="bars"),
        tag("path", d=f"M{zero:.4g} 0V{_HEIGHT}", class_="zero") if inside else None,
        viewBox=f"0 0 {len(histogram.counts)} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=said,
    )


def _marks(values: Statistics) -> Iterable[Html]:
    lost = [(values.nan, "NaN"), (values.inf, "infinite")]
    told = [f"{count:,} {word}" for count, word in lost if count]
    if told:
        yield tag("div", "! ", ", ".join(told), class_="mark bad")


def _table(
    names: list[str], tensors: Mapping[str, TensorInfo], statistics: Mapping[str, Statistics]
) -> Html:
    words = ("Tensor", "Type", "Shape", "Least", "Greatest", "Mean", "Std", "Zeros", "NaN", "Inf")
    body = []
    for name in names:
        info, values = tensors[name], statistics[name]
        numbers = (values.minimum, values.maximum, values.mean, values.std)
        cells = (
            *(number(value) for value in numbers),
            *(f"{count:,}" for count in (values.zeros, values.nan, values.inf)),
        )
        body.append(
            tag(
                "tr",
                tag("th", tag("code", name), scope="row"),
                tag("td", info.dtype),
                tag("td", shape_text(info.shape)),
                joined(tag("td", cell) for cell in cells),
            )
        )
    head = tag("thead", tag("tr", *(tag("th", word) for word in words)))
    table = tag("table", head, tag("tbody", *body), class_="numbers")
    return tag(
        "details",
        tag("summary", tag("b", "All of this as a table")),
        tag("div", table, class_="scroll"),
    )
