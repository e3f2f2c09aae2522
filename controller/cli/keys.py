"""The verbs that make and show keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from controller.arguments import Arguments
from controller.errors import ConfigError

if TYPE_CHECKING:
    from controller.key_settings import ListKeysConfig, NewKeyConfig, ShowKeyConfig


def new(config: NewKeyConfig, arguments: Arguments) -> int:
    """Make a key pair, and tell where it is."""
    from controller.display import say
    from controller.keys import fingerprint, write_pair
    from controller.transport import key_pair

    if not config.name:
        raise ConfigError("name is missing, as in onebeat keys new robot")
    public, secret = key_pair()
    secret_path, public_path = write_pair(config.name, public, secret, _place(config.directory))
    facts = {
        "secret": str(secret_path),
        "public": str(public_path),
        "public_key": public.hex(),
        "fingerprint": fingerprint(public),
    }
    say(facts, arguments.json)
    return 0


def show(config: ShowKeyConfig, arguments: Arguments) -> int:
    """Show a public key, and what to compare it by."""
    from controller.display import say
    from controller.keys import fingerprint

    if not config.name:
        raise ConfigError("name is missing, as in onebeat keys show robot")
    public = _public(config.name, _place(config.directory))
    facts = {"name": config.name, "public_key": public.hex(), "fingerprint": fingerprint(public)}
    say(facts, arguments.json)
    return 0


def list_keys(config: ListKeysConfig, arguments: Arguments) -> int:
    """List the keys of a directory: fingerprint, and whether the secret is there too."""
    from controller.display import console, put_json, put_rows
    from controller.keys import fingerprint, key_directory, names

    directory = _place(config.directory) or key_directory()
    rows = [
        {
            "name": name,
            "fingerprint": fingerprint(_public(name, directory)),
            "secret": "here" if (directory / f"{name}.key").is_file() else "",
        }
        for name in names(directory)
    ]
    if arguments.json:
        put_json(rows)
    elif rows:
        put_rows(rows, as_json=False)
    else:
        console().print(f"no keys in {directory}; make some with onebeat keys new NAME")
    return 0


def _place(directory: str | None) -> Path | None:
    return Path(directory).expanduser() if directory else None


def _public(name: str, directory: Path | None) -> bytes:
    """Return the public key of a name or file; it follows from the secret where it was lost."""
    from controller.keys import key_directory, read_public, read_secret
    from controller.transport import public_key

    here = directory or key_directory()
    lost = not (here / f"{name}.pub").is_file() and (here / f"{name}.key").is_file()
    if lost or name.endswith(".key"):
        return public_key(read_secret(name, directory))
    return read_public(name, directory)
