"""The page of a study as an application of WSGI: what it shows, and what it takes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import yaml

from autopeft.api.outcome import Outcome, outcome_of
from autopeft.core.catalog import Reference, parse
from autopeft.core.errors import AutoPeftError, StudyError, inside
from autopeft.core.report import described
from autopeft.report.page import body, page
from autopeft.study.record import find_record
from autopeft.study.spec import StudySpec
from autopeft.study.wishes import Wishes

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

HERE = ("127.0.0.1", "localhost")
"""Names by which a browser reaches the page; another name is somebody else's page that tries to."""

MOST_BYTES = 100_000
"""Of a configuration that somebody wants to see tried."""

OPTUNAS = ("dashboard", "api", "static", "csv", "favicon.ico")
"""First parts of the paths that Optuna's dashboard answers."""

UNFRAMED = ("X-Frame-Options", "DENY")
"""What keeps pages of others from showing this one inside of theirs."""

Answer = tuple[HTTPStatus, str, str]
"""Status, content type and text."""


class App:
    """Answers a browser on this machine; the record is read anew for every answer.

    `GET /` is the page, `GET /body` what it tells (nothing where that is what was `seen`),
    `GET /trials/N` a trial and its configuration, `POST /trials/N` takes a wish, `POST /trials` a
    configuration to try. The rest is Optuna's dashboard, where that is installed.

    Args:
        spec: of a study that has been run.
        reference: arguments by which commands find the study.

    Raises:
        StudyError: there is no record, or it cannot be read.
    """

    def __init__(self, spec: StudySpec, reference: Iterable[str]) -> None:
        self._spec, self._reference = spec, tuple(reference)
        self._record = find_record(spec.storage_url, spec.name)
        self._optuna = _optunas(spec.storage_url)
        self._reading, self._proposing = threading.Lock(), threading.Lock()
        self._drawn = ("", "")
        self._read()

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/").strip("/").split("/")
        refusal = _refusal(environ)
        if refusal is None and self._optuna is not None and path[0] in OPTUNAS:
            if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
                return self._optuna(environ, partial(_unframed, start))
            refusal = _json({"error": "Optuna's dashboard is to look at"}, HTTPStatus.FORBIDDEN)
        status, kind, text = refusal or self._answered(environ, path)
        content = text.encode()
        headers = [
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            UNFRAMED,
        ]
        start(f"{status.value} {status.phrase}", headers)
        return [content]

    def _answered(self, environ: WSGIEnvironment, path: list[str]) -> Answer:
        """The answer to a request; bad input is one, too."""
        try:
            match environ["REQUEST_METHOD"], path:
                case "GET", [""]:
                    return HTTPStatus.OK, "text/html", self._page()
                case "GET", ["body"]:
                    return self._body(parse_qs(environ.get("QUERY_STRING", "")))
                case "GET", ["trials", number] if number.isdecimal():
                    return _json(self._trial(int(number)))
                case "POST", ["trials", number] if number.isdecimal():
                    return _json(self._steered(int(number), _sent(environ)))
                case "POST", ["trials"]:
                    return _json(self._proposed(_sent(environ)))
        except AutoPeftError as error:
            return _json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except Exception as error:
            return _json({"error": described(error)}, HTTPStatus.INTERNAL_SERVER_ERROR)
        return _json({"error": "there is no such page"}, HTTPStatus.NOT_FOUND)

    def _read(self) -> Outcome:
        with self._reading, inside(self._spec.place):
            return outcome_of(self._spec, self._record)

    def _page(self) -> str:
        version, content = self._draw(self._read())
        own = files("autopeft.dashboard")
        css, code = (own.joinpath(f"live.{kind}").read_text("utf-8") for kind in ("css", "js"))
        place = f"dashboard/studies/{self._record._study_id}" if self._optuna else ""
        told = json.dumps({"version": version, "optuna": place})
        head = f"<style>{css}</style><script>const live = {told}</script><script defer>{code}"
        return page(self._spec.name, content, f"{head}</script>")

    def _body(self, asked: Mapping[str, list[str]]) -> Answer:
        outcome = self._read()
        if asked.get("seen") == [_version(outcome)]:
            return HTTPStatus.NO_CONTENT, "text/html", ""
        version, content = self._draw(outcome)
        return _json({"version": version, "body": content})

    def _draw(self, outcome: Outcome) -> tuple[str, str]:
        """What the page tells with its version; drawn once for all that look at it."""
        version = _version(outcome)
        if self._drawn[0] != version:
            told = outcome.spec.name, outcome.facts, outcome.trials, outcome.objectives
            self._drawn = version, body(*told, self._reference)
        return self._drawn

    def _trial(self, number: int) -> dict[str, Any]:
        trials = self._read().trials
        if number >= len(trials):
            raise StudyError(f"there is no trial {number}, there are {len(trials)} trials")
        trial = trials[number]
        with self._reading:
            wanted = Wishes(self._record).of(number)
        config = yaml.safe_dump(trial.config.to_dict(), sort_keys=False, default_flow_style=None)
        return {"trial": number, "state": trial.state, "wanted": wanted, "config": config}

    def _steered(self, number: int, wanted: str) -> dict[str, Any]:
        from autopeft.api.steer import steer  # imports torch

        steer(self._spec, number, wanted)
        return self._trial(number)

    def _proposed(self, text: str) -> dict[str, Any]:
        from autopeft.api.steer import propose  # imports torch

        config: Reference = parse(text, "configuration")
        if not isinstance(config, Mapping):
            raise StudyError("expected a configuration, such as {place: […]}", "configuration")
        with inside("configuration"), self._proposing:
            return self._trial(propose(self._spec, config))


def _unframed(
    start: StartResponse, status: str, headers: list[tuple[str, str]], *more: Any
) -> Callable[[bytes], object]:
    """Starts an answer of Optuna's dashboard."""
    return start(status, [*headers, UNFRAMED], *more)


def _version(outcome: Outcome) -> str:
    """What changes whenever the page would tell something else."""
    trials = [
        (trial.state, 0 if trial.ended else len(trial.reports), trial.n_seeds)
        for trial in outcome.trials
    ]
    return hashlib.sha256(repr((trials, outcome.ended)).encode()).hexdigest()[:16]


def _refusal(environ: WSGIEnvironment) -> Answer | None:
    """What a page of somebody else gets that makes a browser ask here."""
    host = environ.get("HTTP_HOST", "")
    origin = environ.get("HTTP_ORIGIN", f"http://{host}")
    if host.rsplit(":", 1)[0] in HERE and origin == f"http://{host}":
        return None
    return _json({"error": "only this machine's own page may ask"}, HTTPStatus.FORBIDDEN)


def _sent(environ: WSGIEnvironment) -> str:
    """The text that a request brings.

    Raises:
        StudyError: it is too long, or no text.
    """
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or int(length) > MOST_BYTES:
        raise StudyError(f"expected at most {MOST_BYTES:,} bytes, got {length}")
    try:
        return environ["wsgi.input"].read(int(length)).decode()
    except UnicodeDecodeError:
        raise StudyError("expected text in UTF-8") from None


def _json(content: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return status, "application/json", json.dumps(content)


def _optunas(url: str) -> Callable[..., Iterable[bytes]] | None:
    """Optuna's dashboard of a storage; None where it is not installed."""
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        return None
    return wsgi(url)
