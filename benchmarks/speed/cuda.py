"""The same for tensors on a GPU: the stall, the copy over the bus, and what overlaps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.speed.rows import Job, LeftOut, Row, Timed, Variant, Wanted
from benchmarks.speed.stall import tensors_in

__all__ = ["ROWS"]


def _on_device(job: Job) -> dict[str, Any]:
    """Return the state on the GPU; the copies over are finished when this returns."""
    import torch

    from benchmarks.speed.states import checkpoint

    if not torch.cuda.is_available():
        raise LeftOut("there is no CUDA device")
    state = _moved(checkpoint(job))
    torch.cuda.synchronize()
    return state


def _moved(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        # AdamW keeps its step counts in ordinary memory.
        return value.to("cuda") if value.dim() else value
    if isinstance(value, dict):
        return {key: _moved(inner) for key, inner in value.items()}
    return value


def _copy(*, pinned: bool) -> Callable[[Job], Timed]:
    """Copy everything into memory of the host that is there and warm."""

    def prepare(job: Job) -> Timed:
        import torch

        sources = tensors_in(_on_device(job))
        targets = [torch.empty(s.shape, dtype=s.dtype, pin_memory=pinned) for s in sources]
        for target in targets:
            target.fill_(1)

        def copy() -> None:
            for target, source in zip(targets, sources, strict=True):
                target.copy_(source, non_blocking=pinned)
            torch.cuda.synchronize()

        return Timed(copy)

    return prepare


def _ours(*, earlier: int = 0) -> Callable[[Job], Timed]:
    def prepare(job: Job) -> Timed:
        import ckptstore

        state = _on_device(job)
        store = ckptstore.Store(job.folder / "store")
        store.prepare(**state)
        for step in range(earlier):
            store.save_async(**state, step=step).result()
        return Timed(lambda: store.save_async(**state, step=earlier), after=store.close)

    return prepare


def _dcp(job: Job) -> Timed:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

    state, saves = _on_device(job), []
    # Pinned memory that is kept, copied into without a thread: what stalls is what is timed.
    stager = DefaultStager(StagingOptions(True, False, False, True))

    def save() -> None:
        place = str(job.folder / f"dcp-{len(saves)}")
        saves.append(dcp.async_save(state, checkpoint_id=place, async_stager=stager))

    save()
    saves[0].result()
    return Timed(save, after=lambda: saves[-1].result())


def _work(*, saving: bool) -> Callable[[Job], Timed]:
    """Multiply matrices on the GPU, for about as long as a save takes, with and without one."""

    def prepare(job: Job) -> Timed:
        import torch

        import ckptstore

        state = _on_device(job)
        left = torch.randn(4096, 4096, device="cuda")
        store = ckptstore.Store(job.folder / "store")
        store.prepare(**state)

        def work() -> dict[str, float]:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for number in range(300):
                if saving and number == 10:
                    store.save_async(**state, step=1)
                left.copy_(torch.nn.functional.normalize(left @ left))
            end.record()
            torch.cuda.synchronize()
            return {"seconds": begin.elapsed_time(end) / 1000}

        return Timed(work, after=store.close)

    return prepare


_WANTED = (Wanted("time", 1.2),)

ROWS = (
    Row(
        "stall-cuda",
        "stall of a save in the background, tensors on a GPU",
        (
            Variant("copy into pinned memory", _copy(pinned=True)),
            Variant("copy into pageable memory", _copy(pinned=False)),
            Variant("save_async, the first after prepare()", _ours(), ours=True, wanted=_WANTED),
            Variant("save_async, the second", _ours(earlier=1), ours=True, wanted=_WANTED),
            Variant("DCP async_save, pinned, the second", _dcp),
        ),
        weight=0.4,
    ),
    Row(
        "overlap-cuda",
        "work on a GPU while a save in the background begins and goes on",
        (
            Variant("no save", _work(saving=False)),
            Variant("with save_async", _work(saving=True), ours=True),
        ),
        weight=0.3,
    ),
)
