"""What happens to the writers, and what must be so afterwards."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.faults.children import Child
from benchmarks.faults.ledger import Ledger
from benchmarks.faults.places import Ground, Place, proxied
from benchmarks.faults.working import Job, clean, prove, write

__all__ = ["DAY", "EVENTS", "Course"]

EVENTS = ("kill", "stop", "clean", "young", "cut", "restart")

DAY = 5.0
"""Seconds that stand for the day after which leftovers go; half of it for the twelve hours."""

_CUTS = ("cut request", "cut reply", "drop", "lose")


class Course:
    """One location, and what is done to whoever saves there.

    Args:
        ground: the storage.
        ledger: of the location.
        chance: decides.
        durations: seconds that saves took lately, shared by all courses of a storage.
    """

    def __init__(
        self, ground: Ground, ledger: Ledger, chance: random.Random, durations: list[float]
    ) -> None:
        self._ground = ground
        self._ledger = ledger
        self._place = ledger.place
        self._chance = chance
        self._durations = durations

    @property
    def events(self) -> dict[str, tuple[float, Callable[[], None]]]:
        """What can happen here: how often, beside a kill, and what."""
        found = {"kill": (1.0, self.kill), "stop": (0.10, self.stop), "clean": (0.01, self.clean)}
        found["young"] = 0.04, self.clean_beside
        if self._ground.server is not None:
            found["cut"] = 0.15, self.cut
        if self._ground.name == "rclone":
            found["restart"] = 0.15, self.restart
        return found

    def save(self) -> None:
        """Save twice and harm nobody, to learn how long that takes."""
        with Child(write, replace(self._job(), count=2)) as writer:
            self._hear(writer)
        self._prove("two saves")

    def kill(self) -> None:
        """SIGKILL at a random moment."""
        with Child(write, self._job()) as writer:
            self._begin(writer)
            self._pause(1.5)
            writer.kill()
            self._hear(writer)
        self._ledger.tally.add("kills")
        self._prove("a kill")

    def cut(self) -> None:
        """Break connections half way, some of them or all for a while."""
        with proxied(self._place) as (place, proxy), Child(write, self._job(place)) as writer:
            self._begin(writer)
            for _ in range(self._chance.randint(1, 4)):
                action, times = self._chance.choice(_CUTS), self._chance.choice((1, 1, 2, 3, 8))
                proxy.say(action=action, times=times, after=self._chance.randrange(12))
                self._pause(2)
                self._ledger.tally.add("connections cut", times)
            killed = self._chance.random() < 0.3
            if killed:
                writer.kill()
                self._ledger.tally.add("kills")
            proxy.say(mend=True)
            writer.say(quit=True)
            self._hear(writer, expect=False)
            proxy.say(quit=True)
        self._prove("connections cut" + " and a kill" * killed)

    def restart(self) -> None:
        """Kill the server, and start it again where it was."""
        assert self._ground.server is not None
        with Child(write, self._job()) as writer:
            self._begin(writer)
            self._pause(2)
            self._ground.server.stop()
            time.sleep(self._chance.choice((0.0, 0.1, 0.5)))
            self._ground.server.restart()
            self._pause(1)
            writer.say(quit=True)
            self._hear(writer, expect=False)
        self._ledger.tally.add("servers restarted")
        self._prove("a restart of the server")

    def stop(self) -> None:
        """Stop a writer inside a save, let another one commit twice, and let the first go on."""
        with Child(write, self._job()) as writer:
            self._begin(writer)
            self._pause(1)
            writer.stop()
            writer.say(quit=True)
            # The other one's values are far away, since nobody knows how far the first one is.
            job = replace(self._job(), value=self._ledger.value + 1000, count=2)
            if self._place.history:
                # Without conditions two writers of one step are not kept apart, and not promised.
                ahead = 0 if self._ground.conditions else 50
                job = replace(job, step=self._at(writer) + ahead)
            with Child(write, job) as other:
                messages = other.rest()
            writer.go_on()
            said = self._hear(writer, expect=False)
            self._ledger.heard(messages, expect=False)
        self._ledger.tally.add("stops")
        self._ledger.check_told([*said, *messages])
        self._prove("a stop inside a save, while another saved twice")

    def clean_beside(self) -> None:
        """Clean up while a writer is at work or stands still inside a save; it must succeed."""
        stopped = self._chance.random() < 0.5
        with Child(write, self._job()) as writer:
            self._begin(writer)
            self._pause(1)
            if stopped:
                writer.stop()
            for _ in range(1 if stopped else 3):
                self._clean(None)
            writer.go_on()
            writer.say(quit=True)
            messages = writer.rest()
        for message in messages:
            if "failed" in message:
                self._ledger.tally.wrong("live files cleaned", str(message))
        self._ledger.heard(messages, expect=False)
        self._prove("cleaning beside a writer")

    def clean(self) -> None:
        """Clean up, by age, what a writer has written that was stopped for too long."""
        job = replace(self._job(), longest=DAY / 2)
        with Child(write, job) as writer:
            self._begin(writer)
            self._pause(1)
            writer.stop()
            time.sleep(DAY + 1.5)  # S3 counts whole seconds.
            self._clean(DAY)
            writer.go_on()
            writer.say(quit=True)
            self._hear(writer, expect=False)
        self._prove("cleaning after a writer that was stopped for a day")

    def tidy(self) -> None:
        """Save once more, clean up everything, and look whether anything is left."""
        before = self._leftovers()
        with Child(write, replace(self._job(), count=1)) as writer:
            self._hear(writer)
        self._clean(-1.0)
        self._prove("cleaning up")
        after = self._leftovers()
        tally = self._ledger.tally
        if self._ledger.behind:
            tally.wrong("views that stay behind", self._place.url)
        # moto dates all uploads alike, so those of steps are left to a lifecycle rule.
        undated = {name for name in after if self._ground.name == "moto" and "(upload)" in name}
        tally.add("uploads left alone", len(undated))
        for name in after - undated:
            tally.wrong("leftovers that stay", f"{name} in {self._place.url}")
        tally.add("leftovers found", len(before))
        tally.add("leftovers cleaned", len(before - after))

    def _job(self, place: Place | None = None) -> Job:
        return Job(
            place or self._place,
            step=self._ledger.step + 1,
            value=self._ledger.value + 1,
            asynchronous=self._chance.random() < 0.4,
            large=0.1 if self._ground.server is None else 0.2,
            seed=self._chance.getrandbits(32),
        )

    def _begin(self, writer: Child) -> None:
        writer.next("ready")

    def _pause(self, saves: float) -> None:
        """Wait for a random time, at most as long as some saves take."""
        usual = sum(self._durations) / len(self._durations) if self._durations else 0.1
        time.sleep(self._chance.uniform(0.0, saves * usual))

    def _hear(self, writer: Child, *, expect: bool = True) -> list[dict[str, Any]]:
        messages = writer.rest()
        self._durations += (message["seconds"] for message in messages if "saved" in message)
        del self._durations[:-50]
        self._ledger.heard(messages, expect=expect)
        return messages

    def _at(self, writer: Child) -> int:
        """Return the step at which a writer that stands still is."""
        while writer._read(0.0):
            pass
        return max((m["step"] for m in writer._messages if "begun" in m), default=self._ledger.step)

    def _clean(self, older_than: float | None) -> None:
        with Child(clean, self._place, older_than) as cleaner:
            told: dict[str, Any] = cleaner.next() or {}
        self._ledger.tally.add("cleanings")
        if "crashed" in told:
            self._ledger.tally.wrong("not opened", f"a cleaner: {told['crashed']}")

    def _prove(self, after: str) -> None:
        with Child(prove, self._place) as prover:
            self._ledger.proved(prover.next(), after)

    def _leftovers(self) -> set[str]:
        """Return what is there and belongs to no state and no view."""
        with Child(_listed, self._place) as lister:
            listed = set((lister.next() or {}).get("listed", ()))
        uploads = {f"{key} (upload)" for key in self._ground.uploads(self._place)}
        return self._ground.files(self._place) - listed | uploads


def _listed(line: Any, place: Place) -> None:
    """Tell what all manifests list."""
    from ckptstore.commit.layout import (
        generation_folder,
        generations,
        read_manifest,
        step_folder,
        steps,
    )
    from ckptstore.storage import connect

    storage = connect(place.url, place.options)
    folders = [*map(generation_folder, generations(storage)), *map(step_folder, steps(storage))]
    names = set()
    for folder in ("", *folders):
        manifest = read_manifest(storage, folder)
        if manifest is not None:
            start = f"{folder}/" if folder else ""
            names |= {f"{start}manifest.json", *(start + path for path in manifest.paths())}
    line.tell(listed=sorted(names))
