"""What is harmed: everything that changes what is stored, through the public functions alone.

A state is made of one number, which every tensor and every JSON file of it holds: so a mixture of
two states shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

import ckptstore
from ckptstore.storage import connect
from ckptstore.testing import Crash, Killed, asked, inject
from ckptstore.tiers import byhand
from ckptstore.transfer import sending
from gpt.config import GPTConfig
from gpt.model import GPT

__all__ = ["ACTS", "Act", "Place", "state"]


@dataclass(frozen=True)
class Place:
    """Where an act happens: a location, and another one beside it.

    Attributes:
        root: a folder's path, or a URL.
        options: storage options.
    """

    root: str
    options: Mapping[str, Any] | None = None

    @property
    def url(self) -> str:
        return f"{self.root}/dante"

    @property
    def other(self) -> str:
        return f"{self.root}/other"

    def store(self, url: str | None = None, **options: Any) -> ckptstore.Store:
        return ckptstore.Store(url or self.url, storage_options=self.options, **options)

    def save(self, number: int, url: str | None = None, **more: Any) -> ckptstore.Checkpoint:
        return ckptstore.save(
            url or self.url, **state(number, **more), storage_options=self.options
        )

    def step(self, number: int, step: int, url: str | None = None, **more: Any) -> None:
        self.history(url).save(**state(number, step=step), **more)

    def history(self, url: str | None = None, last: int | None = None) -> ckptstore.Store:
        return self.store(url, keep=ckptstore.Keep(last=last))


def state(number: int, *, step: int | None = None, full: bool = False) -> dict[str, Any]:
    """Return what to save: with an optimizer, a further state and a tokenizer, or without."""
    value = float(number)
    parts: dict[str, Any] = {
        "model": {"a": torch.full((3, 5), value), "b": torch.full((4,), value)},
        "config": {"number": number},
        "step": number if step is None else step,
    }
    if full:
        parts["optimizer"] = {"state": {0: {"m": torch.full((5,), value)}}, "param_groups": []}
        parts["state"] = {"rng": {"seen": torch.full((2,), value)}}
        parts["tokenizer"] = {"token_kind": "char", "chars": ["a", "b", chr(100 + number)]}
    return parts


@dataclass(frozen=True)
class Act:
    """One thing that may be harmed.

    Attributes:
        name: for people.
        run: does it.
        prepare: makes what is there before.
        between: the numbers of states that may also be found while it is under way.
        copies: whether it writes to the other location, and must not change the first.
        saves: whether it makes something new, which has to last once it has returned.
        removes: whether nothing may be found afterwards.
        history: whether what it changes is a history.
        stay: steps that are there before it, while it is under way, and after.
        on_disk: whether it needs a local disk.
        bound: whether what is stored names the place, so that the same disk elsewhere is another.
    """

    name: str
    run: Callable[[Place], object]
    prepare: Callable[[Place], object] = lambda place: None
    between: tuple[int, ...] = ()
    copies: bool = False
    saves: bool = True
    removes: bool = False
    history: bool = False
    stay: tuple[int, ...] = ()
    on_disk: bool = False
    bound: bool = False

    def changed(self, place: Place) -> str:
        return place.other if self.copies else place.url


def _edit(place: Place, name: str, data: bytes) -> None:
    connect(place.url, place.options).replace(name, data)


def _edited(place: Place) -> None:
    """Leave a checkpoint whose config a person changed, in full agreement with its weights."""
    place.save(1, full=True)
    _edit(place, "config.json", b'{"number": 1, "mine": true}\n')


def _asynchronous(place: Place) -> None:
    with place.store() as store:
        store.save_async(**state(2, full=True)).result()


def _steps(place: Place) -> None:
    for step in (1, 2, 3, 4):
        place.step(step, step)


def _pinned(place: Place) -> None:
    _steps(place)
    place.history().pin(1)


def _legacy(place: Place) -> None:
    """Leave what the code before ckptstore wrote: one file that holds everything."""
    import io

    data = io.BytesIO()
    parts = state(1, full=True)
    torch.save(
        {
            "model_state_dict": parts["model"],
            "config": parts["config"],
            "tokenizer": parts["tokenizer"],
            "step": parts["step"],
            "optimizer_state_dict": parts["optimizer"],
        },
        data,
    )
    connect(place.url, place.options).create("latest.pt", data.getvalue())


def _cut_off(place: Place) -> None:
    """Leave a generation whose view was not refreshed, and a killed writer's leftovers."""
    place.save(1, full=True)
    for fault in (Crash(asked("create", "manifest.json")), Crash(asked("replace", "config.json"))):
        try:
            with inject(fault):
                place.save(2)
        except Killed:
            continue


def _replaced(place: Place) -> None:
    """Leave a checkpoint in whose view a person put a model.pt, and its config."""
    place.save(1)
    place.save(2, place.other)
    data = connect(place.other, place.options).read("model.pt")
    _edit(place, "model.pt", data)
    _edit(place, "config.json", b'{"number": 2}\n')
    _edit(place, "training_state.json", b'{"step": 2}\n')


def _small(place: Place, number: int) -> None:
    """Save without weights in the view, so that nothing but the generation holds them."""
    with place.store(small_view=True) as store:
        store.save(**state(number))


def _gpt(number: int) -> GPT:
    model = GPT(GPTConfig(vocab_size=3, n_embd=4, n_head=1, n_layer=1, block_size=4, device="cpu"))
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(float(number))
    return model


def _gpt_edited(place: Place) -> None:
    _gpt(1).save_checkpoint_bundle(place.url, step=1)
    text = (
        connect(place.url, place.options)
        .read("config.json")
        .replace(b'"dropout"', b'"mine": true, "dropout"')
    )
    _edit(place, "config.json", text)


def _carrying(place: Place, number: int, url: str | None = None) -> None:
    """Save what carries a file of its tokenizer, of the same number."""
    ckptstore.save(
        url or place.url,
        **state(number, full=True),
        vocabulary={"tokenizer.words": f"the words of {number}".encode()},
        storage_options=place.options,
    )


def _both_carrying(place: Place) -> None:
    _carrying(place, 1, place.other)
    _carrying(place, 2)


def _sync_for_inference(place: Place) -> None:
    ckptstore.sync(place.url, place.other, optimizer=False, storage_options=place.options)


def _sync(place: Place) -> None:
    ckptstore.sync(place.url, place.other, storage_options=place.options)


@contextmanager
def _as_if_large() -> Iterator[None]:
    """Have copies leave word of what they copy, as those of 64 MiB and more do."""
    usual, sending._WORTH_A_NOTE = sending._WORTH_A_NOTE, 1
    try:
        yield
    finally:
        sending._WORTH_A_NOTE = usual


def _sync_large(place: Place) -> None:
    with _as_if_large():
        _sync(place)


def _half_copied(place: Place) -> None:
    """Leave a state, and a copy of it that somebody interrupted in its second file."""

    def interrupt(event: Any) -> None:
        if event.name == "optimizer.pt":
            raise KeyboardInterrupt

    place.save(1, full=True)
    with _as_if_large(), suppress(KeyboardInterrupt):
        ckptstore.sync(place.url, place.other, storage_options=place.options, progress=interrupt)


def _both(place: Place) -> None:
    """Leave an older state at the other location, of which one file of bytes is the same."""
    place.save(1, place.other, full=True)
    parts = state(2, full=True)
    parts["state"] = state(1, full=True)["state"]
    ckptstore.save(place.url, **parts, storage_options=place.options)


def _histories(place: Place) -> None:
    place.step(1, 1, place.other)
    place.step(1, 1)
    place.step(2, 2)


def _shared(number: int, step: int) -> dict[str, Any]:
    """Return a state that has the weights of number 1, and else its own."""
    return {**state(number, step=step), "model": state(1)["model"]}


def _overwrite_shared(place: Place) -> None:
    place.history().save(**_shared(2, 1), overwrite=True)


def _shared_histories(place: Place) -> None:
    place.step(1, 1, place.other)
    place.step(1, 1)
    place.history().save(**_shared(2, 2))


def _convert(place: Place, destination: str | None = None, **options: Any) -> None:
    ckptstore.convert(place.url, destination, storage_options=place.options, **options)


def _legacy_and_other(place: Place) -> None:
    _legacy(place)
    place.save(2, place.other)


def _tiered(place: Place, number: int, **options: Any) -> None:
    """Save what has still to be copied to the other location."""
    tier = ckptstore.Tier(place.other, uploader="none")
    place.store(tier=tier, **options).save(**state(number))


def _tiered_steps(place: Place) -> None:
    place.step(1, 1, place.other)
    _tiered(place, 2, keep=ckptstore.Keep())


def _upload(place: Place) -> None:
    list(byhand.upload(place.url, place.other))


ACTS = {
    act.name: act
    for act in (
        Act("first save", lambda p: p.save(1)),
        Act("replace", lambda p: p.save(2), lambda p: p.save(1)),
        Act("replace more", lambda p: p.save(2, full=True), lambda p: p.save(1)),
        Act("replace by less", lambda p: p.save(2), lambda p: p.save(1, full=True)),
        Act("small view", lambda p: _small(p, 2), lambda p: _small(p, 1)),
        Act("view becomes small", lambda p: _small(p, 2), lambda p: p.save(1)),
        Act("async", _asynchronous, lambda p: p.save(1, full=True)),
        Act("carry an edit", lambda p: _gpt(2).save(p.url), _gpt_edited, on_disk=True),
        Act("carry a vocabulary", lambda p: _carrying(p, 2), lambda p: _carrying(p, 1)),
        Act("first step", lambda p: p.step(1, 1), history=True),
        Act("next step", lambda p: p.step(2, 2), lambda p: p.step(1, 1), history=True),
        Act(
            "next step, same weights",
            lambda p: p.history().save(**_shared(2, 2)),
            lambda p: p.step(1, 1),
            history=True,
        ),
        Act("overwrite, same weights", _overwrite_shared, lambda p: p.step(1, 1), history=True),
        Act("retention", lambda p: p.history(last=2).save(**state(5)), _steps, history=True),
        Act(
            "retention beside a pin",
            lambda p: p.history(last=2).save(**state(5)),
            _pinned,
            history=True,
            stay=(1, 4),
        ),
        Act(
            "prune",
            lambda p: p.history().retain(ckptstore.Keep(last=1)),
            _pinned,
            saves=False,
            history=True,
            stay=(1, 4),
        ),
        Act("pin", lambda p: p.history().pin(1), _steps, history=True, stay=(1, 4)),
        Act("unpin", lambda p: p.history().unpin(1), _pinned, history=True, stay=(1, 4)),
        Act(
            "overwrite",
            lambda p: p.step(2, 1, overwrite=True),
            lambda p: p.step(1, 1),
            history=True,
        ),
        Act("sync", _sync, lambda p: p.save(1, full=True), copies=True),
        Act("sync an edit", _sync, _edited, copies=True),
        Act("sync over older", _sync, _both, copies=True),
        Act("sync something large", _sync_large, lambda p: p.save(1, full=True), copies=True),
        Act("sync on", _sync_large, _half_copied, copies=True),
        Act("sync for inference", _sync_for_inference, _both_carrying, copies=True),
        Act("sync a step", _sync, _histories, copies=True, history=True),
        Act(
            "sync a step, same weights",
            _sync,
            _shared_histories,
            copies=True,
            history=True,
        ),
        Act("tier", lambda p: _tiered(p, 2), lambda p: _tiered(p, 1), on_disk=True),
        Act(
            "upload",
            _upload,
            lambda p: _tiered(p, 1),
            copies=True,
            on_disk=True,
            bound=True,
        ),
        Act(
            "upload a step",
            _upload,
            _tiered_steps,
            copies=True,
            history=True,
            on_disk=True,
            bound=True,
        ),
        Act("convert beside", _convert, _legacy),
        Act("convert", lambda p: _convert(p, p.other), _legacy, copies=True),
        Act(
            "convert over",
            lambda p: _convert(p, p.other, overwrite=True),
            _legacy_and_other,
            copies=True,
        ),
        Act(
            "convert to one file",
            lambda p: _convert(p, f"{p.other}/", format="legacy"),
            lambda p: p.save(1, full=True),
            copies=True,
        ),
        Act(
            "rewind",
            lambda p: p.history().rewind(2),
            _steps,
            between=(3,),
            saves=False,
            history=True,
        ),
        Act(
            "remove a step",
            lambda p: p.history().remove(4),
            _steps,
            saves=False,
            history=True,
        ),
        Act(
            "remove",
            lambda p: p.store().remove(),
            lambda p: p.save(1, full=True),
            saves=False,
            removes=True,
        ),
        Act(
            "remove steps",
            lambda p: p.store().remove(),
            _steps,
            saves=False,
            removes=True,
            history=True,
        ),
        Act("repair", lambda p: p.store().repair(), _cut_off, saves=False),
        Act("adopt", lambda p: p.store().repair(adopt=True), _replaced),
        Act("restore", lambda p: p.store().repair(restore=True), _replaced, saves=False),
    )
}
