"""Servers with keys as the command line starts them."""

import pytest

from controller.control import control
from controller.errors import Refused
from controller.key_settings import ClientKeySettings
from controller.keys import client_keys, write_pair
from controller.latency.endpoints import free_tcp_endpoint
from controller.launch import command
from controller.process import Child, Supervisor
from controller.transport import key_pair


@pytest.mark.parametrize(
    ("verb", "words"), [("serve", ["hopper"]), ("sim serve", ["pointmaze-medium"])]
)
def test_a_server_lets_listed_keys_in(tmp_path, monkeypatch, verb, words):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("server", "robot", "stranger"):
        write_pair(name, *key_pair())
    endpoint = free_tcp_endpoint()
    keys = ("keys.secret=server", "keys.clients=[robot]")
    with Supervisor() as supervisor:
        supervisor.start(Child(command(verb, *words, f"endpoint={endpoint}", *keys), "server"))
        known = client_keys(ClientKeySettings("robot", "server"))
        assert control(endpoint, "ready", timeout_s=60.0, keys=known)["task"]
        unknown = client_keys(ClientKeySettings("stranger", "server"))
        with pytest.raises(Refused, match="not on the server's allow-list"):
            control(endpoint, "ready", timeout_s=20.0, keys=unknown)
        with pytest.raises(Refused, match=r"\(key\): .* requires keys"):
            control(endpoint, "ready", timeout_s=20.0)
