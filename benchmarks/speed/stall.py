"""How long training stands still for a save in the background: until `save_async` returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.speed.rows import Job, Row, Timed, Variant, Wanted

__all__ = ["ROWS", "tensors_in"]


def tensors_in(value: Any) -> list[Any]:
    """Return the tensors of a state, in order."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for one in inner for tensor in tensors_in(one)]


def _copy(job: Job) -> Timed:
    import torch

    from benchmarks.speed.states import checkpoint

    sources = tensors_in(checkpoint(job))
    targets = [torch.zeros_like(tensor) for tensor in sources]
    for target in targets:
        target.fill_(1)  # Zeros may be pages that are not there yet.

    def copy() -> None:
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)

    return Timed(copy)


def _ours(*, earlier: int = 0, prepared: bool = False) -> Callable[[Job], Timed]:
    def prepare(job: Job) -> Timed:
        import ckptstore
        from benchmarks.speed.states import checkpoint

        state = checkpoint(job)
        store = ckptstore.Store(job.folder / "store")
        if prepared:
            store.prepare(**state)
        for step in range(earlier):
            store.save_async(**state, step=step).result()
        return Timed(lambda: store.save_async(**state, step=earlier), after=store.close)

    return prepare


def _dcp(*, process: bool = False, kept: bool = False) -> Callable[[Job], Timed]:
    def prepare(job: Job) -> Timed:
        import torch.distributed as dist
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
        from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType

        from benchmarks.speed.states import checkpoint

        state, saves = checkpoint(job), []
        kinds = AsyncCheckpointerType
        options: dict[str, Any] = {"async_checkpointer_type": kinds.THREAD}
        if process:
            options["async_checkpointer_type"] = kinds.PROCESS
            # Its process is found by a group; a group of one needs no network.
            if not dist.is_initialized():
                path = f"file://{job.folder}/group"
                dist.init_process_group("gloo", init_method=path, rank=0, world_size=1)
        if kept:
            # Memory that is kept from one save to the next, as ckptstore's is.
            plain = StagingOptions(False, process, False, False)
            options["async_stager"] = DefaultStager(plain)

        def save() -> None:
            place = str(job.folder / f"dcp-{len(saves)}")
            saves.append(dcp.async_save(state, checkpoint_id=place, **options))

        save()
        saves[0].result()
        return Timed(save, after=lambda: saves[-1].result())

    return prepare


_WANTED = (Wanted("time", 1.2),)

ROWS = (
    Row(
        "stall",
        "stall of a save in the background",
        (
            Variant("copy into warm memory", _copy),
            Variant("save_async, the second", _ours(earlier=1), ours=True, wanted=_WANTED),
            Variant(
                "save_async, the third", _ours(earlier=2), ours=True, wanted=_WANTED, quick=False
            ),
            Variant(
                "save_async, the first after prepare()",
                _ours(prepared=True),
                ours=True,
                wanted=_WANTED,
            ),
            Variant("save_async, the first", _ours(), ours=True, quick=False),
            Variant("DCP async_save, thread, the second", _dcp()),
            Variant(
                "DCP async_save, thread, stager kept, the second", _dcp(kept=True), quick=False
            ),
            Variant("DCP async_save, process, the second", _dcp(process=True), quick=False),
        ),
        weight=2.4,
    ),
)
