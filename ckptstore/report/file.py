"""A report's file: it is there whole, or as it was before."""

from __future__ import annotations

import contextlib
import os
import secrets

from ckptstore.errors import ConflictError, NotFoundError
from ckptstore.report.page import GENERATOR

__all__ = ["check_free", "write"]

_HEAD = 1024


def check_free(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse a file that is not to be replaced: anything but a report, and what is no file.

    Raises:
        ConflictError: something else is there.
        NotFoundError: there is no such folder.
    """
    target = os.path.realpath(path)
    if not os.path.isdir(os.path.dirname(target)):
        raise NotFoundError(
            f"there is no folder {os.path.dirname(target)!r} for the report; make it first"
        )
    if not os.path.lexists(target):
        return
    if not os.path.isfile(target):
        raise ConflictError(f"{os.fspath(path)!r} is no file; choose another name, or - for stdout")
    if overwrite:
        return
    with open(target, "rb") as file:
        if GENERATOR.encode() not in file.read(_HEAD):
            raise ConflictError(
                f"{os.fspath(path)!r} is there already, and is no report of ckptstore; "
                "choose another name, or pass --overwrite"
            )


def write(page: str, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a page into a file, which is replaced in one operation.

    Args:
        page: what to write.
        path: where; an earlier report there is replaced.
        overwrite: replace any other file too.

    Raises:
        ConflictError: something else is there, and stays.
        NotFoundError: there is no such folder.
    """
    check_free(path, overwrite=overwrite)
    target = os.path.realpath(path)
    name = f".{os.path.basename(target)[:100]}.{secrets.token_hex(6)}"
    temporary = os.path.join(os.path.dirname(target), name)
    try:
        with open(temporary, "x", encoding="utf-8", newline="\n") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
