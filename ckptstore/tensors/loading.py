"""Reads a `.pt` into tensors: first its index without torch, then bytes straight into memory.

Rule 1: nothing is built that `ckptstore.ptfile` has not looked through, and of a whole file torch's
own weights-only loader too (G5). Rule 2: a record of a file that has no manifest is checked against
its CRC-32 before anybody gets the tensors (G4). Rule 3: each record is read once, into the memory
that its tensors keep (G6).
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, BinaryIO, cast

import torch

from ckptstore import ptfile
from ckptstore.errors import CorruptionError, UnsafeError, UnsupportedError
from ckptstore.ptfile import PtFile
from ckptstore.tensors.build import buildable, built, storages_of
from ckptstore.tensors.interrupts import Interrupts
from ckptstore.tensors.records import Records, TorchFile

__all__ = ["bytes_in", "check_by_torch", "has_bytes", "load"]


def load(
    file: BinaryIO,
    *,
    map_location: Any = "cpu",
    names: Sequence[str] | None = None,
    part: Callable[[Any], Any] | None = None,
    proved: bool = False,
    mmap: bool = False,
    prove: bool = True,
    where: str,
) -> Any:
    """Return what a `.pt` holds, or a part of it.

    Guarantee: nothing is executed, and there is no other way in (G5); no second copy is made
    (G6); with ``names`` or ``part`` only the records that they touch are read.

    Args:
        file: seekable; left open.
        map_location: where the tensors go, as `torch.load` has it.
        names: entries of the state dict, as `ckptstore.ptfile.repaired` names them.
        part: picks a part of what was saved; it is called with stubs in the place of tensors,
            and may be called again with the tensors themselves.
        proved: whether every byte that ``file`` gives is proved already; otherwise each record
            is checked against its CRC-32.
        mmap: let the tensors look into the file, mapped as memory; what is written to them stays
            there.
        prove: with ``mmap``, whether the tensors' bytes are proved, and torch's own loader asked;
            what the file's pickle says is looked through in any case.
        where: what to call the file in errors.

    Returns:
        The object that was saved; with ``names``, a dict of these alone, in their order.

    Raises:
        NotFoundError: there is no entry of a name; the message has the nearest.
        CorruptionError: the file is damaged, truncated or no `.pt`.
        UnsafeError: it holds more than tensors, numbers, text and containers of these.
        UnsupportedError: the device is not available here, or the file cannot be mapped.
    """
    if names is not None:
        part = _selection(names, part, where)
    content = ptfile.read(file, where)
    _check_device(map_location)
    records = Records(file, content.archive, proved=proved)
    tree = content.root if part is None else part(content.root)
    if buildable(tree) and content.byteorder == sys.byteorder and has_bytes("cpu"):
        if part is None and prove:
            check_by_torch(records, where)
        mapped = _mapped(records, tree, prove=prove) if mmap else None
        found = built(tree, records, map_location, mapped)
        if part is None and prove:
            records.prove(bytes_in(content))
        return found
    if mmap:
        raise UnsupportedError(
            f"{where} holds tensors that cannot be mapped (sparse, quantized, of the other byte "
            "order); load it without mmap"
        )
    whole = _whole(records, content, map_location, where)
    return whole if part is None else part(whole)


def _mapped(records: Records, tree: Any, *, prove: bool) -> memoryview:
    """Return the file as memory, once what the tensors will look into is proved."""
    mapped = records.map()
    if prove:
        records.prove_all(storages_of(tree), mapped)
    return mapped


def _selection(
    names: Sequence[str], part: Callable[[Any], Any] | None, where: str
) -> Callable[[Any], Any]:
    def select(root: Any) -> dict[str, Any]:
        state = root if part is None else part(root)
        if not isinstance(state, Mapping):
            raise CorruptionError(f"{where} holds a {type(state).__name__}, not a state dict")
        return ptfile.chosen(ptfile.repaired(state), names, where)

    return select


def check_by_torch(records: Records, where: str, map_location: str = "cpu") -> None:
    """Have torch's own weights-only loader go through a file, all but the bytes of its tensors.

    So nothing is loaded that plain `torch.load` would refuse.

    Args:
        records: of the file.
        where: what to call it in errors.
        map_location: ``meta`` where the tensors may be larger than memory.

    Raises:
        CorruptionError, UnsafeError: torch refuses it.
    """
    with torch.serialization.skip_data():
        _by_torch(TorchFile(records), map_location, where)


def _whole(records: Records, content: PtFile, map_location: Any, where: str) -> Any:
    """Load everything by torch's own weights-only loader."""
    file = TorchFile(records)
    # torch gives out sparse tensors whose indices point anywhere unless it is told to look.
    sparse = any(stub.parts for stub in content.stubs.values())
    invariants = torch.sparse.check_sparse_tensor_invariants
    guard = invariants(True) if sparse else contextlib.nullcontext()  # type: ignore[no-untyped-call]
    with guard:
        loaded = _by_torch(file, map_location, where)
    # Whatever order torch reads in, no record leaves here unchecked, and no memory unwritten.
    named = {stub.record for stub in _all_stubs(content) if stub.record is not None}
    unread = file.unread(sorted(named)) if has_bytes(map_location) else []
    if unread:
        raise CorruptionError(
            f"{where} is damaged: torch takes its record {unread[0]!r} for read without having "
            "read it; restore it from a good copy"
        )
    records.prove(bytes_in(content))
    return loaded


def bytes_in(content: PtFile) -> list[str]:
    """Return the records of all storages, of those too that no tensor of the result looks into."""
    return [name for name in content.records if name.startswith("data/")]


def _by_torch(file: TorchFile, map_location: Any, where: str) -> Any:
    interrupts = Interrupts()
    try:
        return torch.load(
            cast(IO[bytes], file), map_location=map_location, weights_only=True, mmap=False
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except _REFUSALS as error:
        if file.failure is not None:
            # torch turns it into a RuntimeError that no longer says what the storage said.
            raise file.failure from None
        interrupt = interrupts.behind(error)
        if interrupt is not None:
            raise interrupt from None
        raise _refusal(error, where) from error


_REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    CorruptionError,
)


def _refusal(error: BaseException, where: str) -> Exception:
    """Return our error for one of torch's."""
    lines = str(error).splitlines()
    first = lines[0] if lines else type(error).__name__
    if isinstance(error, pickle.UnpicklingError):
        return UnsafeError(
            f"{where} is refused by torch's safe loader, and nothing was run: {lines[-1]}"
        )
    if "deserialize object on" in first:
        return UnsupportedError(f"{where} was saved on a device that is not here; {first}")
    if isinstance(error, RuntimeError) and "allocate memory" in first:
        return MemoryError(f"not enough memory for {where}: {first}")
    return CorruptionError(
        f"{where} is damaged: torch says {type(error).__name__}: {first}; "
        "restore it from a good copy"
    )


def has_bytes(map_location: Any) -> bool:
    """Whether tensors made now have memory: they have none on meta and in a FakeTensorMode."""
    return str(map_location) != "meta" and type(torch.empty(0)) is torch.Tensor


def _all_stubs(content: PtFile) -> list[ptfile.TensorStub]:
    stubs = list(content.stubs.values())
    for stub in stubs:
        stubs.extend(stub.parts)
    return stubs


def _check_device(map_location: Any) -> None:
    if not isinstance(map_location, (str, torch.device)):
        return
    try:
        torch.empty(0, device=map_location)
    except (RuntimeError, AssertionError, ImportError, NotImplementedError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsupportedError(
            f"map_location is {str(map_location)!r}, which is not available here: {first}"
        ) from error
