"""Saving while training goes on.

`running` copies the state aside and has one save at a time under way, in a thread. The thread
commits, or has a `process` of its own do that: Python then has nothing to do beside the training
but wait. The process does not need torch: `recorded` is what it is given, files as places in
shared memory, and `child` what it runs.
"""

from ckptstore.background.running import Background

__all__ = ["Background"]
