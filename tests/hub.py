"""A stand-in for the Hugging Face hub: serves folders as model repositories, as far as loading a model asks."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Hub:
    """Serves `folder/<organisation>/<model>/<file>` on a port of its own while the block lasts."""

    def __init__(self, folder: Path):
        self.folder, self.asked = folder, []

    def __enter__(self) -> "Hub":
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                hub.asked.append(self.path)
                repository, _, name = self.path.strip("/").partition("/resolve/main/")
                file = hub.folder / repository / name if name else None
                content = file.read_bytes() if file and file.is_file() else b""
                self.send_response(200 if content or self.path == "/" else 404)
                if content:
                    self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                    self.send_header("X-Repo-Commit", "0" * 40)
                elif name:
                    self.send_header("X-Error-Code", "EntryNotFound" if (hub.folder / repository).is_dir() else "RepoNotFound")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            do_GET = do_HEAD

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()
