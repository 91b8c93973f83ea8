"""``python -m benchmarks.sync``: ``ckptstore sync`` beside what people copy checkpoints with.

Each tool is a program of its own, so what is measured is all of it: the start of the process,
every byte on its connections, and the memory of all its processes. `docs/benchmarks.md` says how
to read what is printed, and what is equal.
"""
