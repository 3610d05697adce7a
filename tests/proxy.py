"""What stands between a server of this machine and those who ask it, and can be shut."""

from __future__ import annotations

import socket
import threading

HOST = "127.0.0.1"


class Proxy:
    """Passes bytes on, and back, on a port of its own; while it is shut nobody listens there.

    Args:
        target: port of the server.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.ends: list[socket.socket] = []
        self.server = socket.create_server((HOST, 0))
        self.port = int(self.server.getsockname()[1])
        self._serve()

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    def shut(self) -> None:
        """Listen no more, and end every connection."""
        for end in (self.server, *self.ends):
            _end(end)
        self.server.close()

    def open(self) -> None:
        """Listen again."""
        self.server = socket.create_server((HOST, self.port))
        self._serve()

    def passes(self, passed: int, *, answers: bool) -> bool:
        """Whether a connection goes on after so many bytes in one direction."""
        del passed, answers
        return True

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self.server,), daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            store = socket.create_connection((HOST, self.target))
            self.ends += [client, store]
            for source, target, answers in ((client, store, False), (store, client, True)):
                arguments = (source, target, answers)
                threading.Thread(target=self._pass, args=arguments, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        passed = 0
        try:
            while data := source.recv(65536):
                target.sendall(data)
                passed += len(data)
                if not self.passes(passed, answers=answers):
                    break
        except OSError:
            pass
        for end in (source, target):
            _end(end)


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
