"""A person takes over a real run, of processes, and hands it back."""

import json
import threading
import time

import numpy as np
import pytest

from controller.feed.rows import RowKind
from controller.log_reader import read_log
from controller.replay import refilter_of, replay
from controller.teleop_client import TeleopClient
from controller.types import Mode, Reason, Rung

BLEND_S, TIMEOUT_S = 0.2, 0.2
ACTION = np.array([1.0, -1.0], np.float32)


def drive(endpoint, seen):
    """Look on, drive for a second, hand back, drive again and fall silent."""
    client = TeleopClient(endpoint, "ann")
    spec = client.connect(30.0)
    action = ACTION.astype(spec.action.dtype)

    def send(seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            client.send(action)
            time.sleep(0.02)
            answer = client.look()
            if answer:
                seen.append(answer)

    send(0.5)
    client.engage()
    send(1.0)
    client.release()
    send(0.7)
    client.engage()
    send(0.5)
    time.sleep(1.0)  # Silent, and engaged.
    send(0.3)
    client.close()


@pytest.fixture(scope="module")
def driven(onebeat, store, tmp_path_factory):
    out = tmp_path_factory.mktemp("driven")
    endpoint, seen = f"ipc://{out}/teleop", []
    person = threading.Thread(target=drive, args=(endpoint, seen))
    person.start()
    done = onebeat(
        "run",
        "task=pointmaze-umaze",
        f"policy.bundle={store}",
        "seconds=6",
        f"out={out}",
        f"loop.teleop.endpoint={endpoint}",
        f"loop.teleop.blend_s={BLEND_S}",
        f"loop.teleop.timeout_s={TIMEOUT_S}",
        "loop.slew_per_s=40",
        "--json",
    )
    person.join(60)
    assert done.returncode == 0, done.stderr
    return read_log(out / "log.mcap"), seen, json.loads(done.stdout)


def test_a_person_drove_twice_and_the_log_tells(driven):
    log, seen, _ = driven
    human = log.rung == Rung.HUMAN
    begins = np.flatnonzero(np.diff(human.astype(int)) == 1)
    assert len(begins) == 2
    details = [event.detail for event in log.events if event.kind == "teleop"]
    assert details == [
        "ann took over",
        "ann handed back",
        "ann took over",
        f"ann handed back: silent for {TIMEOUT_S} s",
    ]
    assert (log.mode[human] == Mode.RUN).all()
    assert (log.requested[human] == ACTION).all()
    assert any(answer.driving and answer.rung is Rung.HUMAN for answer in seen)
    assert not seen[-1].driving
    assert not seen[0].driving


def test_every_tick_had_its_command_and_its_record(driven):
    log, _, report = driven
    # By count, not by time: 6 s have 600 periods, of which each has a record or was skipped, and
    # what counts as missed are those and the commands that left after the next deadline.
    assert len(log) + log.dropped + report["skipped"] == 600
    late = log.sent_ns > log.deadline_ns + round(1e9 / log.header.rate_hz)
    assert report["missed"] == report["skipped"] + late.sum()
    assert report["rungs"]["human"] == (log.rung == Rung.HUMAN).sum()
    assert np.isfinite(log.executed).all()
    assert not (log.reasons & (Reason.PLANT_LOST | Reason.NONFINITE)).any()


def test_no_command_jumped_further_than_the_slew_limit_and_the_fade_allow(driven):
    log, _, _ = driven
    period_s = 1.0 / log.header.rate_hz
    # Between two commands of acting rungs; a hold or an episode's end is a stop, and may jump.
    acting = np.isin(log.rung, [Rung.FRESH, Rung.HUMAN]) & (np.diff(log.tick, prepend=-1) == 1)
    pairs = acting[:-1] & acting[1:]
    jumps = np.abs(np.diff(log.executed.astype(np.float64), axis=0)).max(axis=1)[pairs]
    assert jumps.max() <= 40 * period_s + 1e-6
    human = log.rung == Rung.HUMAN
    begin = int(np.flatnonzero(np.diff(human.astype(int)) == 1)[0]) + 1
    faded = (log.reasons[begin:] & Reason.BLENDED) != 0
    # The fade lasts as many ticks as the setting says, the last of them complete.
    assert np.argmin(faded) == np.ceil(BLEND_S / period_s) - 1


def test_the_run_is_recomputed_with_its_person(driven):
    log, _, _ = driven
    result = replay(log, lambda version: None, refilter_of(log))
    assert result.matched, str(result.first_mismatch)


def test_the_training_data_has_the_interventions(driven):
    log, _, _ = driven
    data = log.transitions()
    theirs = data.info["kind"] == RowKind.HUMAN
    assert 40 < theirs.sum() <= (log.rung == Rung.HUMAN).sum()
    assert set(data.info["rung"][theirs]) == {Rung.HUMAN}
