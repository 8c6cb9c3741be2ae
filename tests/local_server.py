"""A small HTTP server of this machine, for stand-ins of what is elsewhere."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class QuietHandler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class LocalServer:
    """Answers by its `handler()` at `url`, on a port of its own, while the block lasts."""

    def handler(self) -> type[QuietHandler]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()  # it ends in 0.02 s
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()
