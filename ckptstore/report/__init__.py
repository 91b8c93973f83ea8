"""A report of a checkpoint: one HTML file that needs nothing else, and runs nothing.

Rules, kept by every module of this folder:

1. What comes from a checkpoint is text from a stranger. Only `ckptstore.report.markup` makes
   markup, and it escapes everything that is not markup already (G5).
2. The page has no script and refers to nothing outside of itself; its own policy forbids both.
3. Figures are geometry in shares of their box, and words are HTML beside them, so that a page is as
   sharp on a telephone as on a wall. Each says in words what it shows.
4. What a page shows has a bound, whatever the checkpoint holds; what was left out is said.
"""

from __future__ import annotations

from ckptstore.report.file import check_free, write
from ckptstore.report.findings import Findings, gather
from ckptstore.report.page import html_of

__all__ = ["Findings", "check_free", "gather", "html_of", "write"]
