"""Stand-ins for the Hugging Face hub, as far as loading, publishing and pulling a model ask."""

import base64
import hashlib
import json
import secrets
from pathlib import Path

from local_server import LocalServer, QuietHandler


class Hub(LocalServer):
    """Serves `folder/<organisation>/<model>/<file>` on a port of its own while the block lasts."""

    def __init__(self, folder: Path):
        self.folder, self.asked = folder, []

    def handler(self):
        hub = self

        class Handler(QuietHandler):
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

        return Handler


class CommitHub(LocalServer):
    """A hub that also takes commits: the part of its API that publishing a model and pulling it need.

    `repos` holds each repository's commits, newest last: their ids and files. Whoever writes needs `TOKEN`. `fault` is asked
    before each request, with its method and path, and may return the status of a refusal.
    """

    TOKEN = "hf_of_the_tests"
    LARGE = (".onnx", ".safetensors")

    def __init__(self):
        self.repos: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.large: dict[str, bytes] = {}
        self.fault = lambda method, path: None

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        revision = secrets.token_hex(20)
        self.repos.setdefault(repo, []).append((revision, files))
        return revision

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict, object]:
        """Status, headers and content (bytes, or what JSON can hold) of the answer to a request."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            if repo in self.repos:
                return 409, {}, {"error": "You already created this model repo", "url": f"{self.url}/{repo}"}
            self.commit(repo, {".gitattributes": b"*.onnx filter=lfs\n"})
            return 200, {}, {"url": f"{self.url}/{repo}"}
        if path == "/api/validate-yaml":
            return 200, {}, {"warnings": [], "errors": []}
        if path.startswith("/lfs/"):
            self.large[path.removeprefix("/lfs/")] = body
            return 200, {}, {}
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, {}, {"transfer": "basic", "objects": [
                entry | ({} if entry["oid"] in self.large else
                         {"actions": {"upload": {"href": f"{self.url}/lfs/{entry['oid']}"}}})
                for entry in json.loads(body)["objects"]]}
        repo = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        if repo not in self.repos:
            return 404, {"X-Error-Code": "RepoNotFound"}, {"error": "Repository not found"}
        revision, files = self.repos[repo][-1]
        if path == f"/api/models/{repo}":
            return 200, {}, {"id": repo, "sha": revision,
                             "siblings": [{"rfilename": name, "size": len(content)} for name, content in files.items()]}
        if "/preupload/" in path:
            return 200, {}, {"files": [
                {"path": entry["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if entry["path"].endswith(self.LARGE) else "regular"}
                for entry in json.loads(body)["files"]]}
        if "/commit/" in path:
            return self._take(repo, [json.loads(line) for line in body.splitlines()])
        _, _, asked = path.partition("/resolve/")
        asked_revision, _, name = asked.partition("/")
        content = dict(self.repos[repo])[asked_revision].get(name)
        if content is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, {}
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return 200, {"ETag": etag, "X-Repo-Commit": asked_revision}, content

    def _take(self, repo: str, lines: list[dict]) -> tuple[int, dict, object]:
        revision, files = self.repos[repo][-1]
        files = dict(files)
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit", revision) != revision:
                return 412, {}, {"error": "A commit has happened since"}
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        revision = self.commit(repo, files)
        return 200, {}, {"commitUrl": f"{self.url}/{repo}/commit/{revision}", "commitOid": revision}

    def handler(self):
        hub = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's system

            def do_GET(self):
                path = self.path.partition("?")[0]
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                allowed = self.headers.get("Authorization") == f"Bearer {hub.TOKEN}" or path.startswith("/lfs/")
                if status := hub.fault(self.command, path):
                    headers, content = {}, {"error": "a fault of the test"}
                elif self.command in ("POST", "PUT") and not allowed:
                    status, headers, content = 401, {}, {"error": "Invalid username or password."}
                else:
                    status, headers, content = hub.answer(self.command, path, body)
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in (headers | {"Content-Length": len(content)}).items():
                    self.send_header(name, str(value))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_HEAD = do_POST = do_PUT = do_GET

        return Handler
