"""How far stateful tests walk: modestly and always the same way in CI, far and always another way by `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, Verbosity, settings

FUZZ = "ZHIYI_FUZZ"  # how many times as many examples as in CI; set by `make fuzz`


def walk(examples: int, steps: int) -> settings:
    """Settings of one stateful test; nothing is shrunk, because that takes minutes on a chain."""
    factor = int(os.environ.get(FUZZ, "0"))
    return settings(
        max_examples=examples * max(factor, 1),
        stateful_step_count=steps * (2 if factor else 1),
        deadline=None,
        database=None,
        derandomize=not factor,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        verbosity=Verbosity.normal,
    )


def is_deep() -> bool:
    """Whether `make fuzz` runs; what must be reached is asked of the walk in CI, which never changes."""
    return int(os.environ.get(FUZZ, "0")) > 0


def factor() -> int:
    """How many times as much as in CI a test tries."""
    return max(int(os.environ.get(FUZZ, "0")), 1)
