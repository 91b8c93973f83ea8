"""Deaths of whole training runs, by scenario; see ``python -m benchmarks.runs --help``."""
