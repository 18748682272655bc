"""A stand-in for the hub on loopback: the few endpoints that downloading a checkpoint needs, and its failures on demand.

``Hub`` serves folders as repositories the way the real hub does: revisions with commits, checksums as etags, large files behind
a redirect, ranges, tokens, and error codes in headers. It records every request, so that a test can say what was fetched.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """One repository: the files of each revision, and who may see them."""

    revisions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False

    def add(self, revision: str, files: dict[str, bytes]) -> None:
        """Let a branch or tag point at these files."""
        content = "".join(f"{name} {_etag(data)}\n" for name, data in sorted(files.items()))
        self.revisions[revision] = files
        self.commits[revision] = hashlib.sha1(content.encode()).hexdigest()

    def commit(self, revision: str) -> str | None:
        """The commit of a branch or tag, or of itself."""
        return self.commits.get(revision) or (revision if revision in self.commits.values() else None)

    def files(self, commit: str) -> dict[str, bytes]:
        return next(self.revisions[name] for name, known in self.commits.items() if known == commit)


@dataclass(frozen=True)
class Asked:
    """One request that came in."""

    method: str
    path: str
    range: str | None
    token: str | None


class Hub:
    """The stand-in's state; ``address`` is what goes into ``HF_ENDPOINT``.

    Attributes:
        repositories: by ``owner/name``.
        asked: all requests so far.
        break_after: file name -> bytes after which each transfer of it is cut off.
        stays_broken: whether what follows a cut transfer is answered with HTTP 503, until ``broken`` is cleared.
        down: whether every request is answered with HTTP 503.
        damaged: names of files of whose bytes one is another one.
        xet: file name -> its hash in the Xet storage.
        xet_storage: that storage's address.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[Asked] = []
        self.break_after: dict[str, int] = {}
        self.stays_broken = True
        self.broken: set[str] = set()
        self.down = False
        self.damaged: set[str] = set()
        self.xet: dict[str, str] = {}
        self.xet_storage = ""
        self.address = ""

    def add(self, name: str, folder: Path, revision: str = "main", **options: object) -> Repository:
        """Serve a folder's files, subfolders included, as a repository's revision."""
        repository = self.repositories.setdefault(name, Repository(**options))  # type: ignore[arg-type]
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        repository.add(revision, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})
        return repository

    def fetched(self) -> list[str]:
        """Names of the files whose bytes were asked for, in order."""
        names = [asked.path for asked in self.asked if asked.method == "GET" and re.match(r"/files/|/[^/]+/[^/]+/resolve/", asked.path)]
        return [path.rsplit("/", 1)[1] for path in names if path.startswith("/files/") or not _is_large(path)]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of loopback."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.asked.append(Asked(self.command, path, self.headers.get("Range"), token))
        if self.hub.down:
            self._send(503)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", path):
            self._with_revision(match[1], match[2], token, self._send_info)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._with_revision(match[1], match[2], token, self._send_tree)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._with_revision(match[1], match[2], token, lambda repo, commit: self._resolve(repo, commit, match[3]))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/xet-read-token/([^/]+)", path):
            self._with_revision(match[1], match[2], token, lambda repo, commit: self._send_xet_token())
        elif match := re.fullmatch(r"/files/([^/]+/[^/]+)/([^/]+)/(.+)", path):
            self._send_file(match[3], self.hub.repositories[match[1]].files(match[2])[match[3]])
        else:
            self._send(404)

    def _with_revision(self, name: str, revision: str, token: str | None, serve) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.token and token is None):
            # The hub does not tell strangers whether a repository exists.
            self._send(401 if token is None else 404, {"X-Error-Code": "RepoNotFound"})
        elif repository.token and token != repository.token:
            self._send(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repository.gated:
            self._send(403, {"X-Error-Code": "GatedRepo"})
        elif (commit := repository.commit(revision)) is None:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            self.repository_name = name
            serve(repository, commit)

    def _send_info(self, repository: Repository, commit: str) -> None:
        siblings = [{"rfilename": name} for name in repository.files(commit)]
        content = {
            "id": self.repository_name,
            "modelId": self.repository_name,
            "sha": commit,
            "private": False,
            "tags": [],
            "siblings": siblings,
        }
        self._send(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _send_tree(self, repository: Repository, commit: str) -> None:
        entries = [{"type": "file", "path": name, "size": len(data), "oid": _etag(data)} for name, data in repository.files(commit).items()]
        self._send(200, {"Content-Type": "application/json"}, json.dumps(entries).encode())

    def _resolve(self, repository: Repository, commit: str, name: str) -> None:
        data = repository.files(commit).get(name)
        if data is None:
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        if not _is_large(name):
            self._send(200, {"X-Repo-Commit": commit, "ETag": f'"{_etag(data)}"'}, self._as_sent(name, data))
            return
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(data)),
            "X-Linked-Etag": f'"{_etag(data)}"',
            # Another host name, as the real hub hands large files to a storage of its own.
            "Location": f"{self.hub.address.replace('127.0.0.1', 'localhost')}/files/{self.repository_name}/{commit}/{name}",
        }
        if name in self.hub.xet:
            headers["X-Xet-Hash"] = self.hub.xet[name]
            headers["X-Xet-Refresh-Route"] = f"{self.hub.address}/api/models/{self.repository_name}/xet-read-token/{commit}"
        self._send(302, headers)

    def _send_xet_token(self) -> None:
        storage = {"X-Xet-Cas-Url": self.hub.xet_storage, "X-Xet-Access-Token": "for-xet", "X-Xet-Token-Expiration": "9999999999"}
        self._send(200, storage)

    def _send_file(self, name: str, data: bytes) -> None:
        if name in self.hub.broken:
            self._send(503)
            return
        sent = self._as_sent(name, data)
        headers, status, start = {"ETag": f'"{_etag(data)}"', "Accept-Ranges": "bytes"}, 200, 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start, status = int(match[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        limit = self.hub.break_after.get(name)
        if limit is None or self.command == "HEAD":
            self._send(status, headers, sent[start:])
            return
        if self.hub.stays_broken:
            self.hub.broken.add(name)
        self._send(status, headers, data[start : start + limit], length=len(data) - start)
        self.close_connection = True

    def _as_sent(self, name: str, data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + data[1:] if name in self.hub.damaged else data

    def _send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", length: int | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
