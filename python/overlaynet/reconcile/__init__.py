"""Deciding what to do, without doing it: events in, actions out; no I/O, no clock, no randomness."""
