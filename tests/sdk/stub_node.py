"""An RPC endpoint that lacks something: passes every request on to a real node, except what a test takes away."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

UNKNOWN_METHOD = {"code": -32601, "message": "the method does not exist/is not available"}

# The answer to (method, params): {"result": …} or {"error": …}, None to ask the real node.
Answer = Callable[[str, list[Any]], dict[str, Any] | None]


@contextmanager
def stub(behind: str, answer: Answer) -> Iterator[str]:
    """URL of an endpoint in front of the node at `behind`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            given = answer(asked["method"], asked["params"])
            if given is None:
                request = urllib.request.Request(
                    behind, json.dumps(asked).encode(), {"Content-Type": "application/json"}
                )
                with urllib.request.urlopen(request, timeout=30) as reply:
                    body = reply.read()
            else:
                body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], **given}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refusing(*methods: str) -> Answer:
    """Does not know these methods."""
    return lambda method, params: {"error": UNKNOWN_METHOD} if method in methods else None
