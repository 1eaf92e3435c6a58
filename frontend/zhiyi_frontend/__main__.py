"""`python -m zhiyi_frontend`: serve the page with waitress and keep the index in step."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from zhiyi.errors import ConfigError, MissingExtra
from zhiyi.index import Index
from zhiyi_frontend.config import PageConfig

THREADS = 4
CHANNEL_SECONDS = 30  # a client that sends nothing for so long is dropped
MAX_HEADER_BYTES = 16 << 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; prints the address once it answers."""
    parser = argparse.ArgumentParser(prog="python -m zhiyi_frontend", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:8000", help="HOST:PORT; port 0 takes a free one")
    parser.add_argument(
        "--no-sync", action="store_true", help="show the index as it is; another process syncs it"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return _serve(given.listen, follow=not given.no_sync)
    except (ConfigError, MissingExtra) as error:
        sys.stderr.write(f"{error}\n")
        return 3


def _serve(listen: str, *, follow: bool) -> int:
    try:
        from waitress.server import create_server  # type: ignore[import-untyped]  # it ships no types

        from zhiyi_frontend.app import create_app
        from zhiyi_frontend.follow import follower
    except ModuleNotFoundError as exc:
        raise MissingExtra("frontend") from exc
    config = PageConfig.from_environment(os.environ)
    index = Index(config.index_url)
    following = None
    if follow:
        following = follower(
            index,
            rpc=config.rpc,
            deployment=config.deployment,
            ipfs=config.ipfs,
            seconds=config.sync_seconds,
        )
        following.start()
    try:
        server = create_server(
            create_app(config, index=index, follower=following),
            listen=listen,
            threads=THREADS,
            ident=None,
            channel_timeout=CHANNEL_SECONDS,
            max_request_header_size=MAX_HEADER_BYTES,
        )
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{listen} cannot be listened on ({exc}); choose another with --listen") from exc
    signal.signal(signal.SIGTERM, _end)
    host, port = listen.rsplit(":", 1)[0], getattr(server, "effective_port", listen.rsplit(":", 1)[-1])
    sys.stdout.write(f"http://{host}:{port}/\n")
    sys.stdout.flush()
    try:
        server.run()
    finally:
        if following:
            following.stop()
        index.close()
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
