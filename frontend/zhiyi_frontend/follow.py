"""Keeps the index up with the chain while the page runs, in one background thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from zhiyi.errors import ConfigError, ZhiyiError
from zhiyi.index import Index

logger = logging.getLogger(__name__)

LATE_AFTER: Final = 12  # missed rounds after which the page says that it is behind
MAX_WAIT: Final = 60.0  # seconds between tries while the chain does not answer
DOCUMENTS_A_ROUND: Final = 20


class Follower(Protocol):
    """What the page asks about its own freshness."""

    @property
    def late(self) -> bool:
        """Whether the index has not been in step with the chain for some time."""
        ...


class IndexFollower:
    """Syncs every `seconds`; a chain or IPFS that does not answer is tried again, less often."""

    def __init__(self, sync: Callable[[], None], documents: Callable[[int], int], seconds: float) -> None:
        self._sync, self._documents, self._seconds = sync, documents, seconds
        self._stop = threading.Event()
        self._good = 0.0  # monotonic time of the last round that worked
        self._thread = threading.Thread(target=self._run, name="index", daemon=True)

    @property
    def late(self) -> bool:
        return time.monotonic() - self._good > LATE_AFTER * self._seconds

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the round under way."""
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        wait = self._seconds
        while not self._stop.is_set():
            try:
                self._sync()
                self._good = time.monotonic()
                wait = self._seconds
            except (ZhiyiError, SQLAlchemyError) as error:
                logger.warning("the index is not in step: %s", error)
                wait = min(2 * wait, max(MAX_WAIT, self._seconds))
            try:
                self._documents(int(time.time()))
            except (ConfigError, SQLAlchemyError) as error:
                logger.warning("metadata is not read: %s", error)
            self._stop.wait(wait)


def follower(
    index: Index, *, rpc: tuple[str, ...], deployment: object, ipfs: str | None, seconds: float
) -> IndexFollower:
    """The follower of one deployment (a path, or None for ZHIYI_DEPLOYMENT). Connects on its first round."""
    from pathlib import Path

    from zhiyi.chain import Chain
    from zhiyi.deployment import Deployment
    from zhiyi.ipfs import Ipfs

    book = Deployment.load(deployment if isinstance(deployment, Path) else None)
    chain = Chain(rpc, chain_id=book.chain_id)
    source = Ipfs(ipfs, timeout=10) if ipfs else None

    def sync() -> None:
        book.check(chain)
        index.sync(chain, book)

    def documents(now: int) -> int:
        return index.fetch_documents(source, now, limit=DOCUMENTS_A_ROUND) if source else 0

    return IndexFollower(sync, documents, seconds)
