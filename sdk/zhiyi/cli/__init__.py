"""The command line `zhiyi`: one command for each step, over the SDK alone.

Exit codes: 0 done; 1 a fault of the program; 2 wrong usage or input; 3 configuration (file, service, extra,
chain); 4 not found; 5 data or signature that must not be trusted; 6 a contract refused; 7 too little money;
8 no answer in time; 9 a delivered chunk is wrong, complain.
"""

from __future__ import annotations

from zhiyi.cli.app import main

__all__ = ["main"]
