"""The verb ``onebeat metrics``: a page that a monitoring system reads, beside the server."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import msgspec

from controller.arguments import Arguments
from controller.control import control
from controller.display import console, put_json
from controller.errors import ConfigError, ControllerError
from controller.key_settings import NO_CLIENT_KEYS, ClientKeySettings
from controller.keys import client_keys
from controller.ranges import Positive
from controller.signals import StopFlag
from policies.serving.exposition import CONTENT_TYPE, text_of

_ADDRESS = re.compile(r"(?P<host>[^:]+):(?P<port>\d{1,5})")


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Show what a policy server counts, in Prometheus text format.

    Attributes:
        endpoint: address of the policy server.
        listen: HOST:PORT to serve the text at, under ``/metrics``; empty to print it once.
        timeout_s: how long the policy server may take to hand its counts over.
        keys: for a server at an endpoint that has keys.
    """

    endpoint: str = "ipc:///tmp/onebeat-policy"
    listen: str = ""
    timeout_s: Positive = 2.0
    keys: ClientKeySettings = NO_CLIENT_KEYS


def metrics(config: MetricsConfig, arguments: Arguments) -> int:
    """Print what a policy server counts, or serve it as a page until SIGTERM or Ctrl-C."""
    keys = client_keys(config.keys)

    def read() -> dict[str, Any]:
        return control(config.endpoint, "metrics", timeout_s=config.timeout_s, keys=keys)

    if arguments.json:
        put_json(read())
        return 0
    if not config.listen:
        sys.stdout.write(text_of(read()))
        return 0
    with StopFlag() as stop:
        page = MetricsPage(config.listen, lambda: text_of(read()))
        console().print(f"metrics of {config.endpoint} at http://{page.address}/metrics")
        page.run(stop)
    return 0


class MetricsPage:
    """Serves what ``read`` returns to one reader at a time, under ``/metrics``.

    A policy server that does not answer gives the status 503 with the reason, and is asked
    anew for the next reader.

    Args:
        listen: HOST:PORT; port 0 takes a free one.
        read: returns the text.

    Attributes:
        address: the bound HOST:PORT.

    Raises:
        ConfigError: not an address, or it cannot be bound.
    """

    def __init__(self, listen: str, read: Callable[[], str]) -> None:
        match = _ADDRESS.fullmatch(listen)
        if not match or int(match["port"]) > 65535:
            raise ConfigError(f"{listen}: expected HOST:PORT, as in 127.0.0.1:9464")
        try:
            self._server = HTTPServer((match["host"], int(match["port"])), _handler(read))
        except OSError as error:
            raise ConfigError(f"{listen}: cannot be bound: {error.strerror or error}") from None
        self.address = f"{match['host']}:{self._server.server_port}"

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Serve until ``should_stop()``, asked at least every 200 ms; then free the address."""
        self._server.timeout = 0.2
        try:
            while not should_stop():
                self._server.handle_request()
        finally:
            self._server.server_close()


def _handler(read: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0  # a reader that says nothing must not keep others waiting

        def do_GET(self) -> None:
            if self.path.split("?")[0] not in ("/metrics", "/"):
                self._send(404, "text/plain", "expected /metrics\n")
                return
            try:
                text = read()
            except ControllerError as error:
                self._send(503, "text/plain", f"{error}\n")
            else:
                self._send(200, CONTENT_TYPE, text)

        def _send(self, status: int, kind: str, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    return Handler
