"""Serve the page of runs while they are trained: on the loopback address, behind a token, read-only."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import warnings
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from entropilot.errors import UserError
from entropilot.records import RecordWarning, Run
from entropilot.reports.page.build import Options, describe, render
from entropilot.reports.text import clean, mapping, number

HOST = "127.0.0.1"
SHORTEST = 1.0  # seconds between two readings of the same runs, however many clients ask


class Live:
    """Hold the runs as they are now, packed again when their files changed.

    Args:
        open_runs: reads them.
        paths: their folders or files.
        options: of the page.
        waits: a path without a run is one that has not begun; otherwise it is an error.
    """

    def __init__(
        self,
        open_runs: Callable[[], Sequence[Run]],
        paths: Sequence[Path],
        options: Options,
        *,
        waits: bool = False,
    ) -> None:
        self._open, self._paths, self._options, self._waits = open_runs, paths, options, waits
        self._lock, self._read_at, self._stamp = Lock(), 0.0, ""
        self._packed, self._state = b"", {}
        self.page, self._empty = "", True
        self.update()

    def update(self) -> None:
        """Read the runs again if a file of theirs changed.

        Raises:
            UserError: a run is gone, or can't be read.
        """
        with self._lock:
            if time.monotonic() - self._read_at < SHORTEST and self._packed:
                return
            stamp = self._files()
            self._read_at = time.monotonic()
            if stamp == self._stamp:
                return
            with warnings.catch_warnings():  # the last line of a run that goes on is often in the making
                warnings.simplefilter("ignore", RecordWarning)
                runs = self._open()
            page = describe(runs, self._options)
            self._packed = page.packer.packed(page.document)
            self._state = {
                "stamp": stamp,
                "text": "; ".join(progress(run) for run in runs),
                "lines": {"sentences": [_line(item) for item in page.words["readings"]]},
            }
            if not self.page or self._empty:
                self.page = render(runs, self._options, live=True)
            self._empty = not any(run.rows for run in runs)
            self._stamp = stamp

    def _files(self) -> str:
        """Return a digest of names, sizes and times of everything that the page shows."""
        found = []
        for path in self._paths:
            here = (
                [path]
                if path.is_file()
                else sorted(path.glob("*.jsonl")) + sorted(path.glob("tokens/*.parquet"))
            )
            if not here and not self._waits:
                raise UserError(f"{path} is gone, or holds no run any more.")
            for file in here:
                try:
                    status = file.stat()
                except OSError:
                    continue
                found.append((str(file), status.st_size, status.st_mtime_ns))
        return hashlib.sha256(repr(found).encode()).hexdigest()[:32]

    @property
    def packed(self) -> tuple[bytes, str]:
        """Return the page's data and its stamp."""
        return self._packed, self._stamp

    @property
    def state(self) -> dict[str, Any]:
        """Return the stamp of the data, one line on the progress, and the sentences of the summary."""
        return self._state


def progress(run: Run) -> str:
    """Say how far a run is: step, seconds a step, and the time left where the number of steps is known."""
    if not run.rows:
        return f"{clean(run.name, 60)}: no step yet"
    step = run.rows[-1]["step"]
    parts = [f"{clean(run.name, 60)}: step {step:,}"]
    if mapping(run.header.get("end")):
        return f"{parts[0]}, ended: {clean(mapping(run.header['end']).get('reason', ''), 80)}"
    seconds = [
        row["seconds/step"] for row in run.rows[-20:] if isinstance(row.get("seconds/step"), int | float)
    ]
    if seconds:
        mean = sum(seconds) / len(seconds)
        parts.append(f"{number(mean, '.2f')} s a step")
        total = mapping(mapping(run.header.get("recipe")).get("grpo")).get("max_steps")
        if isinstance(total, int) and total > step:
            parts.append(f"about {(total - step) * mean / 60:.0f} minutes left")
    return ", ".join(parts)


def _line(item: dict[str, str]) -> str:
    return f"{item['name']}: {item['text']}" if item["name"] else item["text"]


def make_server(live: Live, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """Return a server that is not started yet, and the address to open.

    Raises:
        UserError: the port is taken.
    """
    token = secrets.token_urlsafe(16)

    class Handler(_Handler):
        pass

    Handler.live, Handler.token = live, token
    try:
        server = _Server((HOST, port), Handler)
    except OSError as error:
        raise UserError(f"--port {port} can't be used ({error.strerror}); choose another.") from error
    Handler.hosts = (f"{HOST}:{server.server_port}", f"localhost:{server.server_port}")
    return server, f"http://{HOST}:{server.server_port}/{token}/"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    """Three answers, for who knows the token and came by the loopback's own name; anything else is refused."""

    live: Live
    token: str
    hosts: tuple[str, ...]
    server_version, sys_version = "entropilot", ""
    timeout = 30

    def do_GET(self) -> None:  # noqa: N802  # the name that http.server calls
        """Answer the page, its data, or its state."""
        # Another name for this address means another site's page asks (DNS rebinding).
        if self.headers.get("Host") not in self.hosts:
            return self._send(403, b"forbidden\n", "text/plain")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in [f"http://{host}" for host in self.hosts]:
            return self._send(403, b"forbidden\n", "text/plain")
        parts = urlsplit(self.path).path.split("/")
        if len(parts) != 3 or not secrets.compare_digest(parts[1].encode(), self.token.encode()):
            return self._send(404, b"not found\n", "text/plain")
        what = parts[2]
        if what == "":
            return self._send(200, self.live.page.encode("utf-8", "replace"), "text/html; charset=utf-8")
        if what not in ("data", "state"):
            return self._send(404, b"not found\n", "text/plain")
        try:
            self.live.update()
        except (UserError, OSError) as error:
            body = json.dumps({"text": clean(error, 300)}).encode()
            return self._send(410 if what == "data" else 200, body, "application/json")
        if what == "state":
            return self._send(200, json.dumps(self.live.state).encode(), "application/json")
        data, stamp = self.live.packed
        if self.headers.get("If-None-Match") == stamp:
            return self._send(304, b"", "application/octet-stream", stamp)
        return self._send(200, data, "application/octet-stream", stamp)

    def _send(self, status: int, body: bytes, kind: str, stamp: str | None = None) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("X-Frame-Options", "DENY")
            if stamp is not None:
                self.send_header("ETag", stamp)
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the reader closed the page
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal belongs to the training run."""
