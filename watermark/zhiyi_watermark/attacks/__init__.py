"""What a thief does to a marked object, each attack with the parameters of the papers that report it.

Attacks serve tests and benchmarks; no detector imports them. Every one is a pure function of its arguments and a seed:
the caller's texts, arrays and files stay as they are.
"""
