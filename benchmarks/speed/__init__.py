"""``python -m benchmarks.speed``: saving and loading against what the hardware gives, and peers.

Each row is one piece of work. Its variants do the same: the limit, which is the least that the
work can cost on this machine (a plain write, a plain read, plain HTTP); ckptstore; and peers.
`docs/benchmarks.md` says how to read what is printed.
"""
