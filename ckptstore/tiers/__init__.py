"""Tiers: a state is saved to a local folder, and then copied to a bucket beside the training.

`tier` is what one asks for, `journal` what has still to be copied, on the local disk, where it
survives every death. `rounds` does once what the journal says; `uploader` goes on doing so, with
pauses after failures. `child` is the process in which it does, `beside` the program's side of it,
and `stored` what a store has of all that.
"""

from __future__ import annotations

from ckptstore.tiers.tier import Tier, Uploads

__all__ = ["Tier", "Uploads"]
