"""G2, G7: a stateful test of the real code, whose interleavings hypothesis chooses.

Writers, a reader, doctor, a cleaner and a person who edits by hand are actors. Each runs real
code in a thread of its own, which stops before every operation of its storage until it is told to
go on; so whoever tells decides who does what when, who is killed, and whose reply is lost. What
the storage really holds is read without ckptstore after every change, and held against a
dictionary of what was tried and what was acknowledged.

    python -m tests.stateful --seconds 600     random histories, counted

The storages are in `places`, the threads in `processes`, what actors do in `acts`, the dictionary
in `ledger`, what has to hold in `promises` and `rest`, and the choices in `moves`.
"""
