"""G2, G3: deaths, lost replies and losses of power, at every operation of everything that saves.

What is harmed is in `acts`, what has to hold afterwards in `looking`; `python -m tests.faults`
runs the loops whole, of which the tests run a part.
"""
