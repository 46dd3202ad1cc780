"""A hub of one repository on localhost, as far as huggingface_hub's snapshot_download asks.

Follows the routes that huggingface_hub 2.4 uses: repository info, file tree, file download.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves a folder as one repository; `downloads` lists the files that were asked for.

    Attributes:
        status: Sent instead of an answer to every request, with `error` as the hub's error code.
    """

    def __init__(self, repo: str, folder: Path) -> None:
        self.repo = repo
        self.folder = folder
        self.downloads: list[str] = []
        self.status = 200
        self.error = ""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = unquote(urlparse(request.path).path)
        if self.status != 200:
            return self._send(request, self.status, b"{}", {"X-Error-Code": self.error}, body)
        if path.startswith(f"/api/models/{self.repo}/tree/"):
            return self._send(request, 200, json.dumps(self._tree()).encode(), {}, body)
        if path in (f"/api/models/{self.repo}/revision/main", f"/api/models/{self.repo}"):
            return self._send(request, 200, json.dumps(self._info()).encode(), {}, body)
        if path.startswith(f"/api/models/{self.repo}/revision/"):
            headers = {"X-Error-Code": "RevisionNotFound"}
            return self._send(request, 404, b"{}", headers, body)
        prefix = f"/{self.repo}/resolve/{COMMIT}/"
        if path.startswith(prefix) and (self.folder / path.removeprefix(prefix)).is_file():
            return self._file(request, path.removeprefix(prefix), body)
        return self._send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def _file(self, request: BaseHTTPRequestHandler, name: str, body: bool) -> None:
        if body:
            self.downloads.append(name)
        content = (self.folder / name).read_bytes()
        etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        self._send(request, 200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body)

    def _tree(self) -> list[dict[str, object]]:
        return [
            {
                "type": "file",
                "path": path.name,
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest(),
            }
            for path in sorted(self.folder.iterdir())
        ]

    def _info(self) -> dict[str, object]:
        names = [{"rfilename": path.name} for path in sorted(self.folder.iterdir())]
        return {"id": self.repo, "modelId": self.repo, "sha": COMMIT, "siblings": names}

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        content: bytes,
        headers: dict[str, str],
        body: bool,
    ) -> None:
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if body:
            request.wfile.write(content)
