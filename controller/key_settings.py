"""Settings of encryption keys. Reading them needs neither keys nor sockets."""

from __future__ import annotations

import msgspec


class ServerKeySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who a server is, and whom it lets in.

    Attributes:
        secret: the server's own key: its name (see ``onebeat keys list``), or the path of a .key
            file; empty for no encryption, which is for this machine alone.
        clients: public keys that may connect: names, paths of .pub files, directories of such, or
            the 64 hex digits themselves.
    """

    secret: str = ""
    clients: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.secret) != bool(self.clients):
            lacking = "clients" if self.secret else "secret"
            raise ValueError(f"{lacking} is missing: keys need the server's secret and its clients")

    @property
    def places(self) -> tuple[str, ...]:
        """Where the clients' keys are, one or several."""
        return (self.clients,) if isinstance(self.clients, str) else self.clients


class ClientKeySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who a client is, and which server it trusts.

    Attributes:
        secret: the client's own key: its name (see ``onebeat keys list``), or the path of a .key
            file; empty for no encryption, which is for this machine alone.
        server: the server's public key: its name, the path of a .pub file, or its 64 hex digits.
    """

    secret: str = ""
    server: str = ""

    def __post_init__(self) -> None:
        if bool(self.secret) != bool(self.server):
            lacking = "server" if self.secret else "secret"
            raise ValueError(
                f"{lacking} is missing: keys need the client's secret and the server's public key"
            )

    def require(self, endpoint: str | None) -> None:
        """Raise ValueError where there are keys and no server of an ``endpoint`` to use them."""
        if self.secret and endpoint is None:
            raise ValueError("keys are for a server that runs already: name its endpoint")


NO_SERVER_KEYS = ServerKeySettings()
NO_CLIENT_KEYS = ClientKeySettings()


class NewKeyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Make a key pair: NAME.key, the secret, and NAME.pub, for the other side.

    Attributes:
        name: of the pair; letters, digits, dots, dashes and underscores.
        directory: where to keep it; null for ``$XDG_CONFIG_HOME/onebeat/keys``, by default
            ``~/.config/onebeat/keys``, where keys are found by name.
    """

    name: str = ""
    directory: str | None = None


class ShowKeyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Show the public key of a pair.

    Attributes:
        name: of the pair, or the path of a .pub or .key file.
        directory: where keys are found by name; null as in ``onebeat keys new``.
    """

    name: str = ""
    directory: str | None = None


class ListKeysConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """List the keys that are found by name.

    Attributes:
        directory: where they are; null as in ``onebeat keys new``.
    """

    directory: str | None = None
