"""A file server with the faults of the internet, on the loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """What the server has, and how it fails.

    Attributes:
        files: content by path.
        tag: entity tag of the files; empty for none.
        ranges: whether it gives parts of files.
        break_after: bytes of an answer after which it hangs up, one entry per request.
        statuses: status of an answer without content, one entry per request; 0 for a normal one.
        asked: (path, Range header) of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    tag: str = '"one"'
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """Serve on a free port and yield the base address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            wanted = self.headers.get("Range", "")
            behaviour.asked.append((self.path, wanted))
            status = behaviour.statuses.pop(0) if behaviour.statuses else 0
            content = behaviour.files.get(self.path)
            if status or content is None:
                self.send_response(status or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = 0
            if behaviour.ranges and wanted and self.headers.get("If-Range") == behaviour.tag:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            self.send_response(206 if start else 200)
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            if behaviour.tag:
                self.send_header("ETag", behaviour.tag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            part = content[start:]
            if behaviour.break_after:
                part = part[: behaviour.break_after.pop(0)]
                self.close_connection = True
            self.wfile.write(part)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
