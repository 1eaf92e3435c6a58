"""Marks: bits in, carrier out; carrier in, bits and p-value out."""
