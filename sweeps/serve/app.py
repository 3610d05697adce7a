"""What a browser is answered, as a WSGI application.

It listens on the loopback interface, which any page in the browser can reach too. So a request must
name the loopback in its `Host` (a name that was rebound to it does not), may only read, and no
answer can be framed or read by another site.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from cifake.errors import one_line
from cifake.places import Place
from sweeps.report.content import PAGE
from sweeps.serve.live import LivePage
from sweeps.serve.outputs import read_output

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

SHELL = "live.html"
"""What stands around the page."""

DASHBOARD = ("/dashboard", "/api/", "/csv/", "/static/")
"""What the addresses of Optuna's dashboard begin with."""

_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_SHELL = {
    SHELL: "text/html; charset=utf-8",
    "live.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
}
_OWN = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
_OWN += "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_INERT = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
"""Of files that no script belongs to."""

_PAGE = "frame-ancestors 'self'"
"""Of the page, which says itself what it may load."""

_GUARDS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Cache-Control", "no-store"),
)


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    status: str
    kind: str
    content: bytes
    policy: str = _INERT


def guarded(application: WSGIApplication) -> WSGIApplication:
    """An application that hears of reading requests to the loopback alone."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            refused = _text("405 Method Not Allowed", "this server is for reading")
            return _send(refused, environ, start_response, ("Allow", "GET, HEAD"))
        if not _HOST.fullmatch(environ.get("HTTP_HOST", "")):
            text = "open it as http://127.0.0.1 or http://localhost"
            return _send(_text("421 Misdirected Request", text), environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            known = {name.lower() for name, _ in headers}
            more = [(name, value) for name, value in _GUARDS if name.lower() not in known]
            return start_response(status, [*headers, *more], *rest)

        return application(environ, start)

    return answer


@dataclass(frozen=True)
class Site:
    """Everything that is served of one sweep.

    Args:
        name: of the sweep.
        question: that it asks.
        live: its page.
        sweep: the folder of its outputs.
        links: what says which dashboards there are now: addresses by their names.
        dashboard: of the sweep's studies; null where it is not shown.
    """

    name: str
    question: str
    live: LivePage
    sweep: Place
    links: Sequence[Callable[[], Mapping[str, str]]] = ()
    dashboard: WSGIApplication | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        path = environ.get("PATH_INFO", "/")
        if self.dashboard is not None and path.startswith(DASHBOARD):
            return self.dashboard(environ, start_response)
        return _send(self._answer(path), environ, start_response)

    def _answer(self, path: str) -> Answer:
        if path == "/-/state":
            return Answer("200 OK", "application/json", json.dumps(self.state()).encode())
        if path == "/" or path.startswith("/-/"):
            return self._shell(path.removeprefix("/-/").strip("/") or SHELL)
        if path == f"/{PAGE}":
            return self._page()
        try:
            found = read_output(self.sweep, path.removeprefix("/"))
        except OSError as error:
            return _text("503 Service Unavailable", f"the store cannot be read: {one_line(error)}")
        return Answer("200 OK", *found) if found else _text("404 Not Found", "no such output")

    def state(self) -> dict[str, Any]:
        """What the bar over the page tells."""
        shown = self.live.shown
        standing = shown.standing
        return {
            "version": shown.version,
            "made_at": None if shown.made_at is None else shown.made_at.isoformat(),
            "making": shown.making,
            "problem": shown.problem,
            "cells": None if standing is None else standing.cells,
            "cells_done": None if standing is None else standing.cells_done,
            "runs": {} if standing is None else dict(standing.by_status),
            "links": {name: url for link in self.links for name, url in link().items()},
        }

    def _shell(self, name: str) -> Answer:
        if name not in _SHELL:
            return _text("404 Not Found", "there is no such page")
        text = files("sweeps.serve").joinpath(name).read_text("utf-8")
        text = text.replace("{{name}}", escape(self.name)).replace(
            "{{question}}", escape(self.question)
        )
        return Answer("200 OK", _SHELL[name], text.encode(), _OWN)

    def _page(self) -> Answer:
        page = self.live.shown.page
        if page:
            return Answer("200 OK", _SHELL[SHELL], page, _PAGE)
        text = "<!doctype html><meta charset=utf-8><title>no page yet</title>"
        text += "<meta name=color-scheme content='light dark'>"
        text += "<p style='font-family: sans-serif'>No epoch is finished yet; the page comes by "
        text += "itself.</p>"
        return Answer("200 OK", _SHELL[SHELL], text.encode())


def _text(status: str, text: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())


def _send(
    answer: Answer, environ: WSGIEnvironment, start_response: StartResponse, *more: tuple[str, str]
) -> Iterable[bytes]:
    headers = [
        ("Content-Type", answer.kind),
        ("Content-Length", str(len(answer.content))),
        ("Content-Security-Policy", answer.policy),
        *_GUARDS,
        *more,
    ]
    start_response(answer.status, headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.content]
