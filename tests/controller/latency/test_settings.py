"""Which cells settings open, and what they refuse."""

import msgspec
import pytest

from controller.config import load
from controller.errors import ConfigError
from controller.latency.settings import Entry, LatencyConfig, Sweep, cells, entry_of, made_up
from tests.test_architecture import ROOT


def told(cell):
    bench = cell.bench
    return (bench.policy.name, bench.engine, bench.device, bench.transport, cell.load)


def test_axes_are_taken_all_with_all():
    config = LatencyConfig(
        rates_hz=(50.0, 100.0), clients=(1, 2), transports=("tcp", "ipc"), loads=("busy", "idle")
    )
    found = cells(config)
    assert len(found) == len(set(found)) == 16
    # The servers are started once for each way to them, and each load begins once.
    assert [told(cell)[3:] for cell in found[::4]] == [
        ("tcp", "busy"),
        ("tcp", "idle"),
        ("ipc", "busy"),
        ("ipc", "idle"),
    ]
    assert [(cell.rate_hz, cell.clients) for cell in found[:4]] == [
        (50.0, 1),
        (50.0, 2),
        (100.0, 1),
        (100.0, 2),
    ]


def test_sweeps_take_what_they_do_not_name_from_outside_and_share_cells():
    config = LatencyConfig(
        rates_hz=(100.0,),
        sweeps=(Sweep(rates_hz=(50.0, 100.0)), Sweep(clients=(1, 8)), Sweep(loads=("faulted",))),
    )
    found = cells(config)
    assert [(cell.load, cell.rate_hz, cell.clients) for cell in found] == [
        ("faulted", 100.0, 1),
        ("idle", 50.0, 1),
        ("idle", 100.0, 1),
        ("idle", 100.0, 8),
    ]


def test_what_cannot_be_is_left_out():
    config = LatencyConfig(
        engines=("numpy", "torch"),
        devices=("cpu", "cuda"),
        transports=("inproc", "ipc"),
        loads=("idle", "faulted"),
    )
    found = {told(cell)[1:] for cell in cells(config)}
    assert len(found) == 9
    assert ("numpy", "cuda", "ipc", "idle") not in found
    assert ("torch", "cuda", "ipc", "faulted") in found
    assert not [each for each in found if each[2:] == ("inproc", "faulted")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["devices=[cuda]"], "device cuda needs engine torch"),
        (["transports=[inproc]", "loads=[faulted]"], "transport inproc has not"),
        (["loads=[lazy]"], "loads.* expected one of busy, faulted, idle, got 'lazy'"),
        (["rates_hz=[0]"], "rates_hz"),
        (["clients=[65]"], "clients"),
        (["policies=[]"], "policies"),
        (["rate_hz=100"], "did you mean rates_hz"),
        (["deadline=0"], "deadline"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(words, said):
    with pytest.raises(ConfigError, match=said) as caught:
        load(LatencyConfig, None, words)
    assert "\n" not in str(caught.value)


def test_a_word_is_a_policy():
    assert entry_of("hopper") == Entry("hopper", "hopper")
    described = Entry("two", "hopper")
    assert entry_of(described) is described
    assert made_up("consistency-2") == ("consistency", 2)
    assert made_up("diffusion-50") == ("diffusion", 50)
    assert [made_up(each) for each in ("hopper", "diffusion-0", "runs/diffusion-5", "bc-1")] == [
        None
    ] * 4


@pytest.mark.parametrize("name", ["quick", "sweep"])
def test_the_settings_that_come_with_it_are_read(name):
    config = load(LatencyConfig, ROOT / "configs" / "latency" / f"{name}.yaml", [])
    assert len(cells(config)) >= 4
    assert msgspec.convert(msgspec.to_builtins(config), LatencyConfig) == config
