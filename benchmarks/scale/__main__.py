"""``python -m benchmarks.scale``: what checkpoints of 10 GB to 10 TB cost on S3, simulated.

Requests are those that ckptstore makes, limits and prices those that S3 documents, and the speed
of a process is a measured one: ``--calibrate`` measures it here, against a server on this machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.scale.tables import found, tables

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
CALIBRATION = Path(__file__).with_name("calibration.json")
BEGIN, END = "<!-- python -m benchmarks.scale -->", "<!-- its end -->"


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--calibrate", action="store_true", help="measure; use what is found")
    parser.add_argument("--server", choices=["rclone", "moto"], default="rclone")
    parser.add_argument("--rounds", type=int, default=3, help="saves and loads of each size")
    parser.add_argument("--keep", action="store_true", help="keep what was measured for the page")
    parser.add_argument("--json", action="store_true", help="print all rows as JSON")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/scale.md")
    options = parser.parse_args()
    calibration = json.loads(CALIBRATION.read_text(encoding="utf-8"))
    if options.calibrate:
        from benchmarks.scale.calibrate import calibrate

        calibration = calibrate(options.server, options.rounds)
        if options.keep:
            CALIBRATION.write_text(json.dumps(calibration, indent=2) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps({"calibration": calibration, **found(calibration)}, indent=2))
        return
    printed = tables(calibration)
    print(printed)
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{printed}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
