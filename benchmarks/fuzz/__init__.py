"""``python -m benchmarks.fuzz``: hostile bytes for every reader, guided by coverage (G5).

A target is a function that takes bytes and reads them as a stranger's. What it may do with them
is stated once, in `benchmarks.fuzz.oracle`: return, or raise one of our errors, in bounded time
and memory, and touch nothing. The mutators know zips, pickles, JSON and manifests, so that what
they change passes the outer checks and reaches what lies behind them. Only
`benchmarks.fuzz.worker` needs atheris; everything else runs in the tests as well.
"""
