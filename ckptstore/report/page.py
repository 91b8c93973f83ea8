"""The page: its sections in their order, and the policy that nothing on it may run or load."""

from __future__ import annotations

import ckptstore
from ckptstore.report import facts
from ckptstore.report.curves import charts, series_of
from ckptstore.report.findings import Findings
from ckptstore.report.heatmap import heatmap
from ckptstore.report.histograms import histograms
from ckptstore.report.markup import Html, tag
from ckptstore.report.safety import panel
from ckptstore.report.style import STYLE
from ckptstore.report.treemap import treemap
from ckptstore.wording import when

__all__ = ["GENERATOR", "html_of"]

GENERATOR = '<meta name="generator" content="ckptstore report'
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def html_of(findings: Findings) -> str:
    """Return a report as one HTML document.

    Guarantee (G5): it has no script, its policy allows none, it loads nothing, and everything that
    comes from the checkpoint is shown as text.

    Args:
        findings: what `gather` found.
    """
    sections = [
        _section("safety", "Integrity and safety", panel(findings)),
        *_training(findings),
        *_difference(findings),
        _size(findings),
        *_values(findings),
        _section("config", "Config", facts.config(findings)),
        _section("tokenizer", "Tokenizer", facts.tokenizer(findings)),
        _section("training", "Training state", facts.training(findings)),
        _section("files", "Files", facts.files(findings)),
    ]
    body = tag(
        "body",
        facts.head(findings),
        tag("nav", *(link for link, _ in sections), aria_label="Sections"),
        tag("main", *(section for _, section in sections)),
        _foot(findings),
    )
    document = tag("html", _head(findings), body, lang="en")
    return f"<!doctype html>\n{document}\n"


def _head(findings: Findings) -> Html:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'{GENERATOR} {ckptstore.__version__}">'),
        tag("meta", http_equiv="Content-Security-Policy", content=Html(_POLICY)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{facts.name_of(findings)}: checkpoint report"),
        tag("style", Html(STYLE)),
    )


def _section(key: str, title: str, *content: object) -> tuple[Html, Html]:
    """Return the link to a section, and the section."""
    link = tag("a", title, href=f"#{key}")
    return link, tag("section", tag("h2", title), *content, id=key, class_=key)


def _training(findings: Findings) -> list[tuple[Html, Html]]:
    series = series_of(findings.rows, findings.steps)
    return [_section("curves", "The run", charts(series))] if series else []


def _difference(findings: Findings) -> list[tuple[Html, Html]]:
    found = findings.difference
    if found is None:
        return []
    parts = heatmap(found, findings.tensors, findings.statistics)
    return [_section("difference", "What changed", *parts)]


def _size(findings: Findings) -> tuple[Html, Html]:
    model = findings.structure.get("model")
    figure = treemap(findings.tensors, model.ties if model is not None else ())
    return _section("size", "Where the bytes are", figure)


def _values(findings: Findings) -> list[tuple[Html, Html]]:
    if not findings.statistics:
        return []
    parts = histograms(findings.tensors, findings.statistics)
    return [_section("values", "The values", *parts)]


def _foot(findings: Findings) -> Html:
    made = when(findings.made.isoformat(timespec="seconds"))
    return tag(
        "footer",
        f"Made {made} by ckptstore {ckptstore.__version__}. "
        "Nothing of the checkpoint was run, and this page runs and loads nothing.",
    )
