import tempfile

import pytest

from controller.endpoints import endpoint_for


@pytest.fixture
def endpoint():
    with tempfile.TemporaryDirectory(prefix="ob-", dir="/tmp") as path:
        yield endpoint_for(path, "s")


@pytest.fixture
def closing():
    """Clients to close after the test."""
    clients = []

    def register(client):
        clients.append(client)
        return client

    yield register
    for client in clients:
        client.close()
