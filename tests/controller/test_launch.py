import pytest

from controller.bundle_search import bundles_of
from controller.errors import ConfigError
from controller.launch import command, fresh_log
from tests.controller.records import header, tick, written


def test_a_log_that_is_there_is_kept(tmp_path):
    log = fresh_log(tmp_path / "run")
    log.write_text("first")
    assert fresh_log(tmp_path / "run") == log
    assert not log.exists()
    assert [path.read_text() for path in log.parent.iterdir()] == ["first"]


def test_two_logs_of_one_second_are_both_kept(tmp_path):
    for text in ("first", "second", "third"):
        fresh_log(tmp_path).write_text(text)
    kept = {path.read_text() for path in tmp_path.iterdir()}
    assert kept == {"first", "second", "third"}


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=f"^out: {out}: cannot be written to: "):
            fresh_log(out)


def test_a_verb_of_two_words_is_two_arguments():
    assert command("sim serve", "seed=1")[-3:] == ["sim", "serve", "seed=1"]


def bundle(place):
    place.mkdir(parents=True)
    (place / "manifest.json").write_text("{}")
    return place


def test_bundles_are_looked_for_where_named_then_where_the_log_says_then_beside_it(tmp_path):
    named, store = tmp_path / "named", tmp_path / "store"
    bundle(named / "v1")
    bundle(store / "v1")
    second = bundle(store / "v2")
    third = bundle(tmp_path / "bundles" / "v3")
    log = written(
        tmp_path / "log.mcap",
        [tick(n, version=f"v{n}") for n in range(5)],
        header(bundles={"v1": str(store)}),
    )
    found = bundles_of(log, None)
    assert found == {"v1": store / "v1", "v2": second, "v3": third}
    assert bundles_of(log, str(named))["v1"] == named / "v1"
