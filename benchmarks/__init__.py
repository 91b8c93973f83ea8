"""Benchmarks: commands that print ratios against a peer or a limit measured in the same run.

No test asserts a time. `docs/benchmarks.md` says how to run them and how to read them.
"""
