"""A model hub on this machine: one repository, served to the real client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

NAME, COMMIT = "somebody/Tiny_Model.v1", "c0ffee" * 6 + "beef"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a hub whose one model has the files of `folder`, and the branch `main`."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}

    listing = [
        {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
        for name, body in files.items()
    ]

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = self.path.partition("?")[0]
            if path in (
                f"/api/models/{NAME}",
                *(f"/api/models/{NAME}/revision/{r}" for r in ("main", COMMIT)),
            ):
                return self.send(json.dumps({"id": NAME, "sha": COMMIT}).encode())
            if path == f"/api/models/{NAME}/tree/{COMMIT}":
                return self.send(json.dumps(listing).encode())
            name = path.removeprefix(f"/{NAME}/resolve/{COMMIT}/")
            return self.send(files[name]) if name in files else self.send(b"", 404)

        def send(self, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", "RevisionNotFound" if NAME in self.path else "RepoNotFound")
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
