"""Structured logs: one JSON object a line on standard error, secrets left out.

Until `configure_logs` is called only warnings and errors are shown, as Python's logging does for any library.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, cast

import structlog

ROOT: Final = "zhiyi_oracle"
# Names under which this package never logs anything; a mistake becomes "[left out]", not a leak.
SECRET_NAMES: Final = frozenset(
    {
        "key",
        "seed",
        "seeds",
        "password",
        "private_key",
        "token",
        "secret",
        "signature",
        "trace_key",
        "salt",
        "T",
        "log2_p",
        "log2_p_global",
    }
)


def leave_out_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: replaces the value of every field named like a secret."""
    for name in event:
        if name in SECRET_NAMES:
            event[name] = "[left out]"
    return event


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; pass `__name__`."""
    made = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            leave_out_secrets,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
    )
    return cast("structlog.stdlib.BoundLogger", made)


class _Stderr(logging.Handler):
    """Writes to whatever sys.stderr is when a line is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")
        sys.stderr.flush()


def configure_logs(level: str = "INFO") -> None:
    """Shows this package's log from `level` on; call once, in the command."""
    logger = logging.getLogger(ROOT)
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
