"""What a deployment may choose of the court: each bound, and the values at it.

constructor
├── the fee is more than all .............................. ParamOutOfRange
├── the reporter's part is more than a tenth .............. ParamOutOfRange
├── a row of the slash table is over 100 % ................ ParamOutOfRange
├── a weaker row takes more than a stronger one ........... ParamOutOfRange
├── posting takes more than 14 days ....................... ParamOutOfRange
├── a case can live longer than a stake is locked ......... ParamOutOfRange
└── everything at its bound ............................... deployed
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from courtroom import DAY, Courtroom, Params
from market import reverts

LONGEST = Params(
    post_window=14 * DAY, challenge_window=6 * DAY, ruling_window=12 * DAY, last_window=15 * DAY
)  # 14 + 6 + 12 + 1 day to serve + the longer of 6 and 12 again + 15 = 60 days


@pytest.fixture
def halves(project: Any, room: Courtroom) -> Any:
    """Deploys a half of the court with these figures."""
    peers = [*(room.vault, room.licenses, room.models, room.committee), room.arbiter, room.last_instance]

    def deploy(name: str, params: Params) -> Any:
        extension = (room.others["extension"],) if name == "MisuseCourt" else ()
        arguments = (room.authority, peers, params.as_tuple(), *extension)
        return room.admin.deploy(getattr(project, name), *arguments)

    return deploy


@pytest.mark.parametrize("half", ["MisuseCourt", "CourtExtension"])
@pytest.mark.parametrize(
    ("changes", "inputs"),
    [
        ({"fee_bps": 10_001}, ("feeBps", 10_001, 10_000)),
        ({"reporter_bps": 1_001}, ("reporterBps", 1_001, 1_000)),
        ({"slash_bps": (1, 2, 10_001)}, ("slashBps[2]", 10_001, 10_000)),
        ({"slash_bps": (1, 3, 2)}, ("slashBps[1]", 3, 2)),
        ({"slash_bps": (3, 2, 2)}, ("slashBps[0]", 3, 2)),
        ({"post_window": 14 * DAY + 1, "last_window": 0}, ("postWindow", 14 * DAY + 1, 14 * DAY)),
        ({"last_window": 15 * DAY + 1}, ("case life", 60 * DAY + 1, 60 * DAY)),
        ({"challenge_window": 12 * DAY + 1}, ("case life", 66 * DAY + 2, 60 * DAY)),
        ({"challenge_window": 0, "last_window": 17 * DAY + 1}, ("case life", 60 * DAY + 1, 60 * DAY)),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else None,
)
def test_figures_beyond_their_bounds_are_refused(
    project: Any, halves: Any, half: str, changes: dict[str, Any], inputs: tuple[str, int, int]
) -> None:
    """The notice of a disclosure, 96 hours, counts where the window to challenge is shorter."""
    names = ("name", "given", "max")
    error = getattr(project, half).ParamOutOfRange
    with reverts(error, values=dict(zip(names, inputs, strict=True))):
        halves(half, replace(LONGEST, **changes))


def test_figures_at_their_bounds_are_taken(halves: Any) -> None:
    params = replace(LONGEST, fee_bps=10_000, reporter_bps=1_000, slash_bps=(10_000, 10_000, 10_000))
    assert halves("CourtExtension", params).address
