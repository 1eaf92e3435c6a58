"""What an operator shows: its attestations to peers, health and metrics to whoever watches it. Reads only."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any, Final

from flask import Flask, Response, jsonify
from flask.typing import ResponseReturnValue
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from waitress.server import create_server  # type: ignore[import-untyped]  # ships no types
from waitress.wasyncore import close_all  # type: ignore[import-untyped]  # ships no types

from zhiyi.types import Verdict
from zhiyi_oracle.judge.attest import Attestation
from zhiyi_oracle.judge.store import CaseStore

_CASE_ID: Final = re.compile(r"0x[0-9a-f]{64}")
MAX_REQUEST_BYTES: Final = 8 * 1024
THREADS: Final = 4


def create_app(store: CaseStore, registry: CollectorRegistry, ready: Callable[[], str | None]) -> Flask:
    """The operator's pages. `ready` returns None, or why the service is not working."""
    app = Flask("zhiyi_oracle.judge")
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES

    @app.get("/attestations/<case_id>")
    def attestations(case_id: str) -> ResponseReturnValue:
        if not _CASE_ID.fullmatch(case_id):
            return jsonify(error="a case id is 0x and 64 lower-case hex digits"), 400
        row = store.ours(case_id)
        if row is None:
            return jsonify(error="this operator has not signed that case"), 404
        given = Attestation(
            signer=row.signer,
            verdict=Verdict.model_validate_json(row.verdict),
            signature=row.signature,
            tag=row.tag,
        )
        return Response(given.model_dump_json(), mimetype="application/json")

    @app.get("/healthz")
    def healthz() -> ResponseReturnValue:
        return jsonify(status="alive")

    @app.get("/readyz")
    def readyz() -> ResponseReturnValue:
        reason = ready()
        return (
            (jsonify(status="ready"), 200)
            if reason is None
            else (jsonify(status="not ready", reason=reason), 503)
        )

    @app.get("/metrics")
    def metrics() -> ResponseReturnValue:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    return app


class HttpServer:
    """waitress in a thread of this process."""

    def __init__(self, app: Flask, host: str, port: int) -> None:
        """port 0 takes a free one, see `port`."""
        # Any: waitress types neither the port nor the trigger of the server that one address gives
        self._server: Any = create_server(
            app, host=host, port=port, threads=THREADS, max_request_body_size=MAX_REQUEST_BYTES, ident="zhiyi"
        )
        self.port: int = self._server.effective_port
        self._thread = threading.Thread(target=self._server.run, name="http", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the loop from inside its own thread: waitress has no call for that."""
        self._server.trigger.pull_trigger(lambda: close_all(self._server._map, True))
        self._thread.join(timeout=5)
        self._server.task_dispatcher.shutdown()
