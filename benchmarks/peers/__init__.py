"""Peers of the benchmarks, re-implemented here or run in an environment of their own."""
