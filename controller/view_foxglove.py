"""A screen for Foxglove: a WebSocket server on this machine (foxglove-sdk, extra ``view``)."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from mcap.records import Schema

from controller.errors import EndpointInUse

if TYPE_CHECKING:
    from foxglove import Channel

HOST = "127.0.0.1"
_BACKLOG = 1024
"""Messages kept for a client that is slow; the oldest are dropped."""


def address(port: int) -> str:
    """Return what to open in Foxglove.

    Raises:
        ModuleNotFoundError: foxglove-sdk is not installed.
    """
    import foxglove  # noqa: F401

    return f"ws://{HOST}:{port}"


class FoxgloveScreen:
    """Serves messages to Foxglove under the schemas that their log has.

    Args:
        port: port to listen on; only this machine is served.
        name: name of the source.

    Raises:
        ModuleNotFoundError: foxglove-sdk is not installed.
        EndpointInUse: the port is taken.
    """

    def __init__(self, port: int, name: str) -> None:
        import foxglove

        self._context = foxglove.Context()
        self._channels: dict[str, Channel] = {}
        try:
            self._server = foxglove.start_server(
                name=name,
                host=HOST,
                port=port,
                context=self._context,
                message_backlog_size=_BACKLOG,
            )
        except RuntimeError as error:
            raise EndpointInUse(f"cannot listen on ws://{HOST}:{port}: {error}") from error

    @property
    def address(self) -> str:
        """What to open in Foxglove."""
        return address(self._server.port)

    @property
    def watched(self) -> bool:
        """Whether anybody has subscribed to a topic."""
        return any(channel.has_sinks() for channel in self._channels.values())

    def open(self, topic: str, encoding: str, schema: Schema) -> None:
        """Announce a topic."""
        import foxglove

        known = foxglove.Schema(name=schema.name, encoding=schema.encoding, data=schema.data)
        self._channels[topic] = foxglove.Channel(
            topic, schema=known, message_encoding=encoding, context=self._context
        )

    def show(self, topic: str, data: bytes, log_time_ns: int) -> None:
        """Send a message to whoever has subscribed."""
        self._channels[topic].log(data, log_time=log_time_ns)

    def close(self) -> None:
        """Stop serving; safe to call twice."""
        self._server.stop()

    def __enter__(self) -> FoxgloveScreen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
