"""What the worker's audit hook sees: everything that reading a checkpoint must never do (G5).

The hook cannot be taken off again, so it records only between `start` and `stop`.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

__all__ = ["Guard"]

_PROJECT = Path(__file__).resolve().parents[2]
_RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
_RUNS += ("subprocess.Popen", "pty.spawn", "code.__new__", "pickle.find_class")
_RUNS += ("ctypes.dlopen", "webbrowser.open", "builtins.input", "builtins.breakpoint", "os.kill")
_REACHES = ("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request", "ftplib")
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod")
_CHANGES += ("os.truncate", "os.chown", "os.utime", "shutil.copyfile", "shutil.move")
_CHANGES += ("shutil.rmtree", "os.listdir", "os.scandir", "sqlite3.connect")
_OF_NAMES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink")
# Dataclasses and named tuples of modules that are imported late make their methods this way.
_MAKERS = ("dataclasses.py", f"collections{os.sep}__init__.py", "typing.py", "enum.py")


class Guard:
    """Records what happens outside of a folder and of the installation, and all that runs.

    Args:
        foreign: modules that only hostile data names; importing one is a fault.
    """

    def __init__(self, foreign: frozenset[str]) -> None:
        self.seen: list[str] = []
        self._foreign = foreign
        self._inside: tuple[str, ...] = ()
        self._recording = False
        places = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(_PROJECT)}
        places |= {sysconfig.get_paths()["stdlib"], os.path.realpath(sys.prefix)}
        self._installed = (*sorted(places), "/proc", "/sys", "/dev", "/usr", "/etc/mime.types")

    def install(self) -> None:
        """Put the hook in its place, for the rest of the process."""
        sys.addaudithook(self._see)

    def start(self, *inside: str) -> None:
        """Begin to record; what happens below these folders is the program's business."""
        self._inside = tuple(map(os.path.realpath, inside))
        self.seen = []
        self._recording = True

    def stop(self) -> list[str]:
        """Return what was recorded since `start`."""
        self._recording = False
        return self.seen

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._recording:
            return
        self._recording = False  # What the hook itself does is not recorded.
        try:
            fault = self._fault(event, args)
            if fault:
                self.seen.append(f"{event} {fault}"[:300])
        finally:
            self._recording = True

    def _fault(self, event: str, args: tuple[Any, ...]) -> str | None:
        if event in _RUNS or event.startswith(_REACHES):
            return repr(args)
        if event == "import":
            return str(args[0]) if str(args[0]).partition(".")[0] in self._foreign else None
        if event == "marshal.loads":
            caller = sys._getframe(2).f_code.co_filename
            return None if caller.startswith("<frozen importlib") else caller
        if event == "exec":
            return self._foreign_code(args[0])
        if event == "open" or event in _CHANGES:
            paths = args[:2] if event in ("os.rename", "os.link", "shutil.copyfile") else args[:1]
            outside = [path for path in paths if self._is_outside(event, path, args)]
            return f"{outside} {args[1:]!r}" if outside else None
        return None

    def _foreign_code(self, code: Any) -> str | None:
        name = getattr(code, "co_filename", "?")
        if name.startswith(("<frozen", *self._installed)):
            return None
        frame = sys._getframe(3)
        if frame.f_code.co_filename.endswith(_MAKERS):
            return None
        return f"{name} from {frame.f_code.co_filename}"

    def _is_outside(self, event: str, path: Any, args: tuple[Any, ...]) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False  # A descriptor of something that was opened before.
        path = os.path.abspath(os.fsdecode(path))
        if event in _OF_NAMES:
            # A link that stands there is itself renamed or removed, and not what it leads to.
            real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        else:
            real = os.path.realpath(path)
        if _below(real, self._inside):
            return False
        mode = args[1] if len(args) > 1 and isinstance(args[1], str) else "r"
        reads = not set(mode) & set("wax+")
        return not (reads and _below(real, self._installed))


def _below(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
