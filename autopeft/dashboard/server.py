"""Serves the page of a study to a browser on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from autopeft.core.errors import StudyError
from autopeft.dashboard.app import HERE, App
from autopeft.study.spec import StudySpec


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread, none of which outlives the server."""

    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of browsers that went away."""


class _Quiet(WSGIRequestHandler):
    """Tells of no request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def dashboard(
    spec: StudySpec, reference: Iterable[str], port: int
) -> Iterator[tuple[str, _Server]]:
    """The address of the page and its server, which listens on this machine alone.

    Args:
        spec: of a study that has been run.
        reference: arguments by which commands find the study.
        port: to listen at; 0 takes a free one.

    Raises:
        StudyError: there is no record, or somebody listens at the port.
    """
    app = App(spec, reference)
    try:
        server = make_server(HERE[0], port, app, _Server, _Quiet)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StudyError(f"cannot listen at {port}: {reason}", "--port") from error
    with server:
        yield f"http://{HERE[0]}:{server.server_port}", server
