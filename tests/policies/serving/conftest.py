import tempfile

import pytest

from controller.endpoints import endpoint_for


@pytest.fixture
def endpoint():
    with tempfile.TemporaryDirectory(prefix="ob-", dir="/tmp") as path:
        yield endpoint_for(path, "s")
