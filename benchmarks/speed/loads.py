"""Loading from a local disk: into memory of its own or mapped, from a warm and a cold cache."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.speed import raw
from benchmarks.speed.files import bundle_files, files_to_load
from benchmarks.speed.memory import drop, resident
from benchmarks.speed.rows import Job, LeftOut, Row, Timed, Variant, Wanted

__all__ = ["ROWS"]

_SAFETENSORS = {"safetensors": "safetensors"}
_MAPPED = "torch.load, mmap=True"


def _raw(job: Job) -> Timed:
    path = job.files()["torch"]
    memory = memoryview(bytearray(Path(path).stat().st_size))
    memory[::4096] = bytes(len(range(0, len(memory), 4096)))
    return Timed(lambda: raw.read_into(path, memory))


def _ours(**options: Any) -> Callable[[Job], Timed]:
    def prepare(job: Job) -> Timed:
        import ckptstore

        takes(ckptstore.open(job.files()["ckptstore"]).load_model, *options)
        location = job.files()["ckptstore"]
        return Timed(lambda: ckptstore.open(location).load_model(**options))

    return prepare


def takes(function: Callable[..., Any], *names: str) -> None:
    """Raise `LeftOut` where a function of this version has no such parameters."""
    for name in names:
        if name not in inspect.signature(function).parameters:
            raise LeftOut(f"this ckptstore has no {function.__name__}({name}=)")


def _torch(touched: bool = False, **options: Any) -> Callable[[Job], Timed]:
    def prepare(job: Job) -> Timed:
        import torch

        def load() -> Any:
            state = torch.load(job.files()["torch"], weights_only=True, **options)
            if touched:
                touch_all(state)
            return state

        return Timed(load)

    return prepare


def touch_all(state: Mapping[str, Any]) -> None:
    """Look at every page of tensors, as who uses them does."""
    import torch

    for tensor in state.values():
        tensor.view(-1).view(torch.uint8)[::4096].sum()


def _safetensors(job: Job) -> Timed:
    from safetensors.torch import load_file

    def load() -> Any:
        # What it returns is mapped from the file in some versions and not in others.
        state = load_file(job.files()["safetensors"])
        touch_all(state)
        return state

    return Timed(load)


def _cold(prepare: Callable[[Job], Timed], kind: str) -> Callable[[Job], Timed]:
    """Do the same with nothing of its files in memory, and see that this is so."""

    def prepared(job: Job) -> Timed:
        timed = prepare(job)
        path = job.files()[kind]
        paths = list(bundle_files(path).values()) if Path(path).is_dir() else [path]
        share = 0.0

        def forget() -> None:
            nonlocal share
            os.sync()
            drop(paths)
            share = resident(paths)
            if share > 0.05 and not job.small:
                raise RuntimeError(f"{share:.0%} of the file stayed in memory; is it in a tmpfs?")

        return Timed(timed.call, forget, timed.after)

    return prepared


def _into(load: Callable[[Any, Job], Callable[[], object]]) -> Callable[[Job], Timed]:
    def prepare(job: Job) -> Timed:
        from benchmarks.speed.states import module

        return Timed(load(module(job), job))

    return prepare


def _restore(**options: Any) -> Callable[[Any, Job], Callable[[], object]]:
    def load(model: Any, job: Job) -> Callable[[], object]:
        import ckptstore

        location = job.files()["ckptstore"]
        takes(ckptstore.open(location).restore, *options)
        return lambda: ckptstore.open(location).restore(model=model, **options)

    return load


def _load_state_dict(
    assign: bool = False, **options: Any
) -> Callable[[Any, Job], Callable[[], object]]:
    def load(model: Any, job: Job) -> Callable[[], object]:
        import torch

        path = job.files()["torch"]

        def into() -> None:
            state = torch.load(path, weights_only=True, **options)
            model.load_state_dict(state, assign=assign)

        return into

    return load


def _safetensors_into(model: Any, job: Job) -> Callable[[], object]:
    from safetensors.torch import load_model

    path = job.files()["safetensors"]
    return lambda: load_model(model, path)


ROWS = (
    Row(
        "load",
        "load, the files in the page cache",
        (
            Variant("read", _raw),
            Variant("load_model()", _ours(), ours=True, wanted=(Wanted("time", 1.5),)),
            Variant(
                "load_model(mmap=True)",
                _ours(mmap=True),
                ours=True,
                wanted=(Wanted("time", 1.0),),
                memory=0,
            ),
            Variant(
                "load_model(mmap=True, prove=False)",
                _ours(mmap=True, prove=False),
                ours=True,
                wanted=(Wanted("time", 1.0, _MAPPED),),
                memory=0,
            ),
            Variant("torch.load", _torch()),
            Variant(_MAPPED, _torch(mmap=True), memory=0),
            Variant("torch.load, mmap=True, touched", _torch(touched=True, mmap=True), memory=0),
            Variant("safetensors, touched", _safetensors, needs=_SAFETENSORS),
        ),
        place=files_to_load,
    ),
    Row(
        "load-cold",
        "load, nothing in the page cache",
        (
            Variant("read", _cold(_raw, "torch")),
            Variant(
                "load_model()",
                _cold(_ours(), "ckptstore"),
                ours=True,
                wanted=(Wanted("time", 1.2),),
                memory=2,
            ),
            Variant(
                "load_model(mmap=True)",
                _cold(_ours(mmap=True), "ckptstore"),
                ours=True,
                wanted=(Wanted("time", 1.2),),
            ),
            Variant("torch.load", _cold(_torch(), "torch"), memory=2),
            Variant(
                "torch.load, mmap=True, touched",
                _cold(_torch(touched=True, mmap=True), "torch"),
                quick=False,
            ),
            Variant(
                "safetensors, touched",
                _cold(_safetensors, "safetensors"),
                needs=_SAFETENSORS,
                memory=2,
                quick=False,
            ),
        ),
        place=files_to_load,
        written=1.0,
    ),
    Row(
        "load-into",
        "load into a model that is there",
        (
            Variant("read", _raw),
            Variant(
                "restore(model=)", _into(_restore()), ours=True, wanted=(Wanted("time", 1.25),)
            ),
            Variant("restore(model=, atomic=True)", _into(_restore(atomic=True)), ours=True),
            Variant("torch.load, load_state_dict", _into(_load_state_dict())),
            Variant("torch.load, mmap=True, load_state_dict", _into(_load_state_dict(mmap=True))),
            Variant(
                "torch.load, mmap=True, load_state_dict(assign=True)",
                _into(_load_state_dict(assign=True, mmap=True)),
                quick=False,
            ),
            Variant(
                "safetensors load_model", _into(_safetensors_into), needs=_SAFETENSORS, quick=False
            ),
        ),
        mib=500,
        place=files_to_load,
        weight=0.6,
    ),
)
