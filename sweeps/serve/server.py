"""A server on the loopback interface of this machine, and on no other."""

from __future__ import annotations

import errno
import socketserver
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer, make_server

from cifake.errors import refuse

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

LOOPBACK = "127.0.0.1"

_SECONDS = 30.0
"""That a client may take to ask."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Answers each request in a thread, which the process does not wait for when it ends."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without asking a name server what this machine is called, as its parent does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away meanwhile is nothing to tell."""


class _Handler(WSGIRequestHandler):
    timeout = _SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
        """Say nothing: the console is for what matters."""


def open_server(application: WSGIApplication, port: int) -> WSGIServer:
    """A server that is bound and does not answer yet.

    Args:
        application: what answers.
        port: to listen on; 0 for any that is free.

    Raises:
        InputError: the port is in use, or only the system's own may listen on it.
    """
    ServerHandler.server_software = "sweeps"
    try:
        return make_server(LOOPBACK, port, application, _Server, _Handler)
    except OSError as error:
        if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
            raise
        reason = "is in use" if error.errno == errno.EADDRINUSE else "is not yours to listen on"
        refuse(f"port {port}", f"{reason}; give another with --port, or 0 for any that is free")
