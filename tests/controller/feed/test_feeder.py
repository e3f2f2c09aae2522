import subprocess
import sys
import time

import numpy as np
import pytest

from controller.config import to_yaml
from controller.errors import ConfigError
from controller.feed.client import ReplayClient
from controller.feed.feeder import ANOTHER_S, Feeder, LogFeed, _service
from controller.feed.outbox import Outbox
from controller.key_settings import ClientKeySettings
from controller.launch import command, fresh_log
from controller.log import McapSink
from controller.log_parts import part_path
from controller.log_reader import read_log
from controller.log_settings import LogSettings
from policies.finetuning.settings import FinetuneConfig, ReplaySettings
from tests.controller.feed.service import CLOCK, Service
from tests.controller.records import SPEC, header, tick

SMALL = LogSettings(max_mb=0.006)


def records(count, first=0):
    """Ticks of episodes of ten steps, with a skipped period in every third one."""
    return [
        tick(
            number + (number // 10 % 3 == 1 and number % 10 > 4),
            episode=number // 10,
            step=number % 10,
            truncated=number % 10 == 9,
            version=f"v{number // 20}",
        )
        for number in range(first, first + count)
    ]


def wait(done, act=lambda: None, seconds=20.0):
    end = time.monotonic() + seconds
    while not done():
        act()
        assert time.monotonic() < end
        time.sleep(0.002)


def assert_fed(service, actor, path):
    """Assert that the rows of an actor are those of a whole log, each once."""
    log = read_log(path)
    data = log.transitions()
    named = service.layout.split(service.rows(actor))
    for name, column in {
        "observation": data.observations,
        "action": data.actions,
        "next_observation": data.next_observations,
        "timeout": data.timeouts,
        "over": data.info["over"],
    }.items():
        assert np.array_equal(named[name], column.astype(np.float32)), name
    versions = [log.policy_versions[number] for number in data.info["version"]]
    assert service.versions(actor) == versions


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.mcap"


@pytest.fixture
def connect(endpoint):
    return lambda spec, name: ReplayClient(endpoint, spec, CLOCK, name, replays=True)


@pytest.mark.parametrize("settings", [LogSettings(), SMALL])
def test_a_growing_log_arrives_though_feeders_die(endpoint, path, connect, settings):
    all_of_it = records(200)
    with Service(endpoint, SPEC) as service:
        feed = LogFeed(path, "arm", connect)
        assert not feed.turn()  # There is no log yet.
        sink = McapSink(path, header(), settings)
        name = f"arm/{read_log(path).header.run}"
        for number, record in enumerate(all_of_it):
            sink.tick(record)
            feed.turn()
            if number % 60 == 30:
                wait(lambda: len(service.rows(name)) > 20, feed.turn)
                feed.close()  # As if it were killed: nothing is sent any more.
                feed = LogFeed(path, "arm", connect)
        sink.close()
        wait(lambda: feed.done, feed.turn)
        feed.close()
        assert list(service.kept) == [name]
        assert_fed(service, name, path)
        assert (settings is SMALL) == part_path(path, 3).exists()


def test_nothing_is_read_ahead_of_a_service_that_is_away(endpoint, path, connect):
    sink = McapSink(path, header())
    for record in records(100):
        sink.tick(record)
    sink.close()
    feed = LogFeed(path, "arm", connect)
    for _ in range(20):
        feed.turn()
    assert feed.client.behind < 10
    assert not feed.done
    with Service(endpoint, SPEC) as service:
        wait(lambda: feed.done, feed.turn)
        assert_fed(service, feed.client.name, path)
    feed.close()


def test_a_log_is_read_again_where_the_service_lost_more_than_is_kept(endpoint, path, connect):
    def small(spec, name):
        client = connect(spec, name)
        client.outbox = Outbox(client.layout, replays=True, capacity=32)
        return client

    kept = {}
    sink = McapSink(path, header())
    feed = LogFeed(path, "arm", small)
    with Service(endpoint, SPEC, kept):
        for record in records(150):
            sink.tick(record)
        wait(lambda: sum(map(len, kept.values())) > 100, feed.turn)
    for rows in kept.values():
        del rows[20:]
    sink.close()
    with Service(endpoint, SPEC, kept) as service:
        wait(lambda: feed.done, feed.turn)
        assert_fed(service, feed.client.name, path)
    feed.close()


def test_another_log_in_the_same_place(endpoint, path, connect):
    """The first one was never finished: loop and recorder were killed."""
    with Service(endpoint, SPEC) as service:
        feeder = Feeder(path, "arm", connect, CLOCK)
        first = McapSink(path, header())
        for record in records(35):
            first.tick(record)
        names = [f"arm/{read_log(path).header.run}"]
        wait(lambda: len(service.rows(names[0])) > 20, feeder.turn)
        fresh_log(path.parent)
        second = McapSink(path, header())
        names.append(f"arm/{read_log(path).header.run}")
        for record in records(25):
            second.tick(record)
        wait(lambda: len(service.rows(names[1])) > 15, feeder.turn, ANOTHER_S + 20)
        second.close()
        wait(lambda: feeder.over, feeder.turn)
        feeder.farewell()
        assert list(service.kept) == names
        old = next(file for file in path.parent.iterdir() if file != path)
        assert_fed(service, names[0], old)
        assert_fed(service, names[1], path)
        assert service.layout.split(service.rows(names[0]))["timeout"][-1]


def test_a_log_whose_first_files_are_gone_has_a_name_of_its_own(endpoint, path, connect):
    sink = McapSink(path, header(), LogSettings(max_mb=0.006, keep=2))
    for record in records(100):
        sink.tick(record)
    sink.close()
    with Service(endpoint, SPEC) as service:
        feed = LogFeed(path, "arm", connect)
        wait(lambda: feed.done, feed.turn)
        assert feed.client.name == f"arm/{feed.header.run}+{feed.header.part}"
        assert feed.header.part > 0
        assert_fed(service, feed.client.name, path)
        feed.close()


def feeder_process(endpoint, out):
    settings = out / "finetune.yaml"
    about = FinetuneConfig(task="any", live=True, replay=ReplaySettings(endpoint=endpoint))
    settings.write_text(to_yaml(about))
    words = command("finetune feed", f"settings={settings}", "name=actor-0", "index=0")
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


def test_the_process_is_killed_and_started_again(endpoint, tmp_path):
    path = tmp_path / "actors" / "actor-0" / "log.mcap"
    path.parent.mkdir(parents=True)
    with Service(endpoint, SPEC) as service:
        feeder = feeder_process(endpoint, tmp_path)
        sink = McapSink(path, header())
        name = f"actor-0/{read_log(path).header.run}"
        for record in records(60):
            sink.tick(record)
        wait(lambda: len(service.rows(name)) > 30)
        feeder.kill()
        feeder.communicate(timeout=20)
        feeder = feeder_process(endpoint, tmp_path)
        for record in records(60, 60):
            sink.tick(record)
        sink.close()
        _, words = feeder.communicate(timeout=20)
        assert (feeder.returncode, words) == (0, "")
        assert_fed(service, name, path)


def test_where_the_service_is_stands_in_the_settings_of_the_fine_tuning(tmp_path):
    settings = tmp_path / "finetune.yaml"
    keys = ClientKeySettings(secret="robot", server="fleet")
    about = ReplaySettings(endpoint="tcp://10.0.0.1:5555", client_keys=keys)
    settings.write_text(to_yaml(FinetuneConfig(replay=about)))
    found = _service(settings)
    assert (found.endpoint, found.client_keys) == (about.endpoint, keys)
    settings.write_text(to_yaml(FinetuneConfig()))
    with pytest.raises(ConfigError, match=r"replay\.endpoint: expected the address"):
        _service(settings)
    settings.write_text("replay: {endpoint: 3}")
    with pytest.raises(ConfigError, match=r"Expected `str \| null`, got `int`"):
        _service(settings)


def test_reading_costs_no_torch():
    code = "import sys, controller.feed.feeder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
