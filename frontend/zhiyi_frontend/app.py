"""`create_app`: the Flask application. It changes nothing, keeps no session and sets no cookie."""

from __future__ import annotations

import logging

from flask import Flask, Response, g, redirect, render_template, request, url_for
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.wrappers import Response as BaseResponse

from zhiyi.errors import BadInput, NotFound
from zhiyi.index import Index
from zhiyi_frontend import cases, health, licenses, market, show
from zhiyi_frontend.config import PageConfig
from zhiyi_frontend.follow import Follower
from zhiyi_frontend.words import HTML_LANGUAGE, LANGUAGES, WORDS, word

logger = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
MAX_BODY_BYTES = 1024  # nothing here takes a body


def create_app(config: PageConfig, *, index: Index | None = None, follower: Follower | None = None) -> Flask:
    """The page over an index (default: that of `config`). `follower` says whether the index is late."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["TRUSTED_HOSTS"] = list(config.hosts) or None
    app.extensions["zhiyi_index"] = index or Index(config.index_url)
    app.extensions["zhiyi_config"] = config
    app.extensions["zhiyi_follower"] = follower
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals.update(show=show)
    for blueprint in (market.blueprint, licenses.blueprint, cases.blueprint):
        app.register_blueprint(blueprint, url_prefix="/<any(zh, en):language>")
    app.register_blueprint(health.blueprint)
    app.add_url_rule("/", "start", _start)
    app.url_value_preprocessor(_take_language)
    app.url_defaults(_give_language)
    app.before_request(_open)
    app.after_request(_secure)
    app.context_processor(_words)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(NotFound, _not_found)
    app.register_error_handler(BadInput, _bad_input)
    app.register_error_handler(SQLAlchemyError, _no_index)
    return app


def _start() -> BaseResponse:
    language = request.accept_languages.best_match(LANGUAGES) or "zh"
    answer = redirect(url_for("market.models", language=language))
    answer.headers["Vary"] = "Accept-Language"
    return answer


def _take_language(endpoint: str | None, values: dict[str, str] | None) -> None:
    given = (values or {}).pop("language", None)
    g.language = given or request.accept_languages.best_match(LANGUAGES) or "zh"


def _give_language(endpoint: str, values: dict[str, str]) -> None:
    if "language" not in values and endpoint.partition(".")[0] in ("market", "licenses", "cases"):
        values["language"] = g.get("language", "zh")


def _open() -> None:
    from flask import current_app

    g.index = current_app.extensions["zhiyi_index"]
    g.config = current_app.extensions["zhiyi_config"]


def _words() -> dict[str, object]:
    from flask import current_app

    language = g.get("language", "zh")
    follower: Follower | None = current_app.extensions["zhiyi_follower"]

    def t(key: str) -> str:
        return word(language, key)

    def named(prefix: str, number: object) -> str:
        """`case_3` in words; the number itself where this version has no word for it."""
        key = f"{prefix}_{number}"
        return word(language, key) if key in WORDS else str(number)

    return {
        "t": t,
        "named": named,
        "language": language,
        "html_language": HTML_LANGUAGE[language],
        "other": next(other for other in LANGUAGES if other != language),
        "coin": g.config.coin if "config" in g else "",
        "late": follower.late if follower else False,
    }


def _secure(response: Response) -> Response:
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-cache")
    return response


def _failed(status: int, message: str = "") -> tuple[str, int]:
    return render_template("error.html", status=status, message=message), status


def _http_error(error: HTTPException) -> BaseResponse | tuple[str, int]:
    if isinstance(error, SecurityError):  # a host that is not ours: no link can be built for it
        return BaseResponse("400 Bad Request\n", status=400, mimetype="text/plain")
    status = error.code or 500
    if status < 400:
        return BaseResponse(status=status, headers=error.get_headers(request.environ))
    return _failed(status)


def _not_found(error: NotFound) -> tuple[str, int]:
    return _failed(404)


def _bad_input(error: BadInput) -> tuple[str, int]:
    return _failed(400)


def _no_index(error: SQLAlchemyError) -> tuple[str, int]:
    logger.error("the index cannot be read: %s", error)
    return _failed(503)
