"""Choosing faults by name."""

import re

import pytest

from controller.errors import ConfigError
from controller.faults.bench import chosen
from controller.faults.settings import FaultTrialsConfig
from controller.faults.trials import FAULTS


def test_no_name_means_all_and_some_mean_those_in_their_order():
    assert chosen(()) == FAULTS
    assert list(chosen(("disk_full", "none"))) == ["disk_full", "none"]


def test_a_wrong_name_is_answered_with_the_nearest_and_all():
    with pytest.raises(ConfigError) as caught:
        chosen(("none", "server_kiled"))
    message = str(caught.value)
    assert message.startswith("faults: no fault 'server_kiled'; did you mean server_killed? valid:")
    assert message.count("did you mean") == 1
    assert all(name in message for name in FAULTS)


def test_help_names_every_fault_and_no_other():
    about = (FaultTrialsConfig.__doc__ or "").split("faults:")[1].split("rate_hz:")[0]
    assert set(re.findall(r"\w+_\w+", about)) | {"none"} == set(FAULTS)
