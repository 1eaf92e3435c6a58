"""The provider's pages: POST /v1/answer, and each user's own proofs."""

from __future__ import annotations

import threading
from typing import Annotated, Final

from flask import Flask, Request, jsonify, request
from flask.typing import ResponseReturnValue
from pydantic import Field, ValidationError

from zhiyi.errors import BadInput, NotFound, ZhiyiError
from zhiyi.types import Value
from zhiyi.usage_log import UsageLog
from zhiyi_oracle.api_users import ApiUser, ApiUsers
from zhiyi_oracle.provider.answer import MAX_NEW_TOKENS, MAX_PROMPT_CHARACTERS, Provider

MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_WAITING: Final = 8  # answers being made or waiting; more are told to come back
RETRY_S: Final = "5"


class AnswerRequest(Value):
    """Body of POST /v1/answer."""

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] = 256


def create_app(provider: Provider, users: ApiUsers, log: UsageLog) -> Flask:
    """The application; every path but /healthz needs a user's token."""
    app = Flask("zhiyi_oracle.provider")
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    places = threading.BoundedSemaphore(MAX_WAITING)
    busy: set[int] = set()
    guard = threading.Lock()

    @app.post("/v1/answer")
    def answer() -> ResponseReturnValue:
        user = _user(request, users)
        if user is None:
            return jsonify(error="send your token as Authorization: Bearer TOKEN"), 401
        try:
            asked = AnswerRequest.model_validate_json(request.get_data())
        except ValidationError as exc:
            return jsonify(error=f"the body is no answer request: {exc.errors()[0]['msg']}"), 400
        with guard:
            if user.number in busy:
                return jsonify(error="your last prompt is not answered yet"), 429, {"Retry-After": RETRY_S}
            if not places.acquire(blocking=False):
                return jsonify(error="too many prompts are waiting"), 503, {"Retry-After": RETRY_S}
            busy.add(user.number)
        try:
            made = provider.answer(user, asked.prompt, max_new_tokens=asked.max_new_tokens)
        except BadInput as exc:
            return jsonify(error=str(exc)), 400
        except ZhiyiError as exc:
            return jsonify(error=str(exc)), 500
        finally:
            with guard:
                busy.discard(user.number)
                places.release()
        return app.response_class(made.model_dump_json(), mimetype="application/json")

    @app.get("/v1/proofs/<int:number>")
    def proof(number: int) -> ResponseReturnValue:
        user = _user(request, users)
        if user is None:
            return jsonify(error="send your token as Authorization: Bearer TOKEN"), 401
        try:
            if log.leaf(number).user_number != user.number:
                raise NotFound(f"leaf {number} is not yours")
            found = log.proof(number)
        except NotFound as exc:
            return jsonify(error=str(exc)), 404
        return app.response_class(found.model_dump_json(), mimetype="application/json")

    @app.get("/healthz")
    def healthz() -> ResponseReturnValue:
        return jsonify(status="alive")

    return app


def _user(asked: Request, users: ApiUsers) -> ApiUser | None:
    scheme, _, token = asked.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= 200:
        return None
    return users.by_token(token)
