"""An explicit-state model of the commit: every interleaving of writers, readers and faults.

The programs here do what ``ckptstore/commit/`` does, one storage operation at a time; what they
share is a `World` of a few named files. `search` goes through all states that can be reached and
returns a shortest trace to one that breaks a promise. ``test_conformance.py`` records the real
code's operations and holds the programs to them, so that a change of the code's protocol has to
be made here too, and is searched again.

    python -m tests.model                     every scenario, a line each
    python -m tests.model NAME ... --seconds 600

What is small here and large in reality: files are single values, a history has a few steps, and
nobody tries more than a few times. What is not in it: the contents of files (see the tests of
`ckptstore.commit.proved`) and loss of power (see the tests of G3).
"""
