"""A way to a daemon on which bytes are counted."""

from __future__ import annotations

import contextlib
import socket
import threading


class Counted:
    """Goes to a port of this host's; as a context manager it closes at the end."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.up = 0
        """Bytes to the daemon."""
        self.down = 0
        """Bytes from it."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.host = f"https://127.0.0.1:{self._listening.getsockname()[1]}"
        """Where it begins."""

    def __enter__(self) -> Counted:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # A thread that waits for a connection is not woken by the close alone.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _listen(self) -> None:
        while True:
            try:
                outer, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(outer,), daemon=True).start()

    def _connect(self, outer: socket.socket) -> None:
        with outer, socket.create_connection(("127.0.0.1", self._to)) as inner:
            back = threading.Thread(target=self._carry, args=(inner, outer, False), daemon=True)
            back.start()
            self._carry(outer, inner, True)
            back.join()

    def _carry(self, of: socket.socket, to: socket.socket, is_up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := of.recv(1 << 16):
                if is_up:
                    self.up += len(data)
                else:
                    self.down += len(data)
                to.sendall(data)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_WR)
