"""The rules of the commit, each of which can be switched off to show what it is there for.

They are those of "The commit: one rule everywhere" in the design; the ones that repair a trace
which a model found are marked there. `Rules()` is what the code does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Rules", "without"]


@dataclass(frozen=True)
class Rules:
    """Which rules hold.

    Attributes:
        create_only: a manifest is created, and never replaces another's (2).
        late_withdraws: after the commit a newer generation means: remove it, conflict (2).
        read_back: a lost reply is settled by comparing the write id of what is there (2).
        unknown_keeps: where it cannot be settled the files stay (2).
        look_again: after a refresh, refresh again until the newest is shown (3).
        commit_first: older states are removed after the new one is committed (4).
        manifest_first: of a state that goes, the manifest goes before the files (4).
        below_newest: leftovers of generations go only at or below the newest (4).
        give_up: an attempt older than half the cleaners' age gives up (4).
        only_old: doctor removes of an old leftover what it found old, and nothing newer (4).
        swap: a step is replaced in one operation, conditional on the manifest that was read.
        rescan: a local listing counts if the set of folders is the same afterwards.
        recheck: bytes that are absent or differ are damage only if the manifest is still there.
        view_ahead: a generation below that of the view's manifest is opened only if a listing
            still shows it as the newest: else it is one that came too late, about to go.
        relist: a hand edit counts only if a listing made after it shows the same newest.
        own_digest: a file in the view whose digest is that generation's is nobody's.
        doctor_compares: doctor compares what is in the view, whatever its manifest recorded.
        forerunners: a hand edit is none of the forerunners' texts.
        top_again: a step that is found below an unfinished one is the newest only if a listing made
            afterwards shows nothing committed above it.
        word_first: who removes a step leaves word of it, and then looks for a pin.
        pin_looks: a pin counts only if there is no such word after it was made.
        delete_if: a storage deletes a file only if it is still the one that is meant, in one
            operation. No storage does that yet; it is here to show what it would be good for.
    """

    create_only: bool = True
    late_withdraws: bool = True
    read_back: bool = True
    unknown_keeps: bool = True
    look_again: bool = True
    commit_first: bool = True
    manifest_first: bool = True
    below_newest: bool = True
    give_up: bool = True
    only_old: bool = True
    swap: bool = True
    rescan: bool = True
    recheck: bool = True
    view_ahead: bool = True
    relist: bool = True
    own_digest: bool = True
    doctor_compares: bool = True
    forerunners: bool = True
    top_again: bool = True
    word_first: bool = True
    pin_looks: bool = True
    delete_if: bool = False


def without(*names: str) -> Rules:
    """Return all rules but the named ones."""
    return replace(Rules(), **dict.fromkeys(names, False))
