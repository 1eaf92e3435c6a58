"""Structured JSON logs on standard error, one object a line, with secrets left out."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

# Names under which this package never logs anything; a mistake becomes "[left out]", not a leak.
SECRET_NAMES = frozenset(
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
    }
)


def leave_out_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: replaces the value of every field named like a secret."""
    for name in event:
        if name in SECRET_NAMES:
            event[name] = "[left out]"
    return event


def configure_logs(level: str = "INFO") -> None:
    """Sets up JSON logging for this process; call once, in the command."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            leave_out_secrets,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
