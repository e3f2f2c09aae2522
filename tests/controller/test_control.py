import pytest

from controller.control import control
from controller.errors import PeerTimeout, Refused
from controller.wire import Control, Report
from tests.controller.scripted import SPEC, ScriptedServer


def test_a_control_request(endpoint):
    def reply(message, arrays):
        if not isinstance(message, Control):
            return []
        return [Report("other", True, "{}"), Report(message.verb, True, '{"after": "v2"}')]

    with ScriptedServer(endpoint, SPEC, reply) as server:
        assert control(endpoint, "swap", {"bundle": "b"}, 20.0) == {"after": "v2"}
        assert server.received[0].role == "control"
        assert Control("swap", {"bundle": "b"}) in server.received


@pytest.mark.parametrize(
    ("report", "match"),
    [
        (Report("swap", False, '{"reason": "no such bundle"}'), "swap: no such bundle"),
        (Report("swap", False, "{}"), "no reason given"),
        (Report("swap", True, "not JSON"), "not a JSON object"),
        (Report("swap", True, "[1]"), "not a JSON object"),
        (Report("swap", True, "[" * 50_000), "not a JSON object"),
    ],
)
def test_a_control_request_that_fails(endpoint, report, match):
    reply = lambda message, arrays: [report] if isinstance(message, Control) else []  # noqa: E731
    with ScriptedServer(endpoint, SPEC, reply), pytest.raises(Refused, match=match):
        control(endpoint, "swap", {"bundle": "b"}, 20.0)


def test_a_control_request_without_a_report(endpoint):
    with ScriptedServer(endpoint, SPEC), pytest.raises(PeerTimeout, match="no report on 'swap'"):
        control(endpoint, "swap", timeout_s=0.2)
    with pytest.raises(PeerTimeout, match="is it running"):
        control(endpoint, "swap", timeout_s=0.1)
