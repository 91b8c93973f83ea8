"""``python -m ckptstore``: the same as the command ``ckptstore``."""

from __future__ import annotations

from ckptstore.cli import main

if __name__ == "__main__":
    main(prog_name="python -m ckptstore")
