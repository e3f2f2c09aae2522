"""Which bundles are meant: names, directories, checkpoints. Bundles here are empty shells."""

import logging
from pathlib import Path

import pytest

from controller.errors import ConfigError
from policies.checkpoints import CHECKPOINTS, Checkpoint, append
from policies.errors import BundleError
from policies.selection import choose, find


def shell(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "manifest.json").write_text("{}")
    return path


def run(path: Path, losses: list[float | None]) -> Path:
    """Return a store with a checkpoint for each loss, the last one current."""
    for index, loss in enumerate(losses):
        shell(path / f"v{index}")
        append(path, Checkpoint(1000 * (index + 1), f"v{index}", loss))
    (path / "current").symlink_to(f"v{len(losses) - 1}")
    return path


def test_a_bundle_and_a_store_are_themselves(tmp_path):
    store = run(tmp_path / "run", [0.5])
    assert find([str(store)]) == [store]
    assert find([str(store / "v0")]) == [store / "v0"]


def test_below_a_directory_are_its_stores_and_bundles_but_not_those_of_a_store(tmp_path):
    stores = [run(tmp_path / "b" / f"seed_{seed}", [0.5, 0.4]) for seed in (0, 1)]
    lone = shell(tmp_path / "a" / "deep" / "v9")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / ".hidden").mkdir()
    shell(tmp_path / ".hidden" / "v1")
    (tmp_path / "tensorboard").mkdir()
    assert find([str(tmp_path)]) == [lone, *stores]


def test_a_glob_over_a_store_has_every_bundle_once(tmp_path, caplog):
    store = run(tmp_path / "run", [0.5, 0.4])
    (store / "metrics.jsonl").write_text("")
    names = sorted(str(entry) for entry in store.iterdir())
    assert {place.resolve() for place in find(names)} == {store / "v0", store / "v1"}
    assert len(find(names)) == 2
    assert not caplog.records


def test_order_is_that_of_the_names(tmp_path):
    names = [str(shell(tmp_path / name)) for name in ("c", "a", "b")]
    assert [place.name for place in find(names)] == ["c", "a", "b"]
    assert [place.name for place in find([str(tmp_path)] * 2)] == ["a", "b", "c"]


def test_a_directory_without_a_bundle_among_others_is_told(tmp_path, caplog):
    names = [str(shell(tmp_path / "v0")), str(tmp_path / "state")]
    (tmp_path / "state").mkdir()
    with caplog.at_level(logging.WARNING):
        assert find(names) == [tmp_path / "v0"]
    assert str(tmp_path / "state") in caplog.text


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_found_is_one_line_and_names_where(tmp_path, count):
    with pytest.raises(BundleError, match=r"no bundle there, nor below") as caught:
        find([str(tmp_path)] * count)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_of_nothing_is_refused_also_among_others(tmp_path):
    with pytest.raises(BundleError, match="no such bundle"):
        find([str(shell(tmp_path / "v0")), str(tmp_path / "v1")])


def test_a_file_alone_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(BundleError, match="neither a bundle"):
        find([str(tmp_path / "metrics.jsonl")])


def test_a_store_whose_current_is_gone_is_told_as_such(tmp_path):
    (tmp_path / "current").symlink_to("v0")
    (place,) = find([str(tmp_path)])
    with pytest.raises(BundleError, match="points to v0"):
        choose(place, "last")


def test_last_is_the_current_bundle(tmp_path):
    store = run(tmp_path / "run", [0.1, 0.3, 0.2])
    choice = choose(store, "last")
    assert [bundle.name for bundle in choice.bundles] == ["v2"]
    assert choice.note is None
    assert choose(store / "v0", "last").bundles == (store / "v0",)


def test_online_leaves_every_checkpoint_and_says_what_that_is_worth(tmp_path):
    choice = choose(run(tmp_path / "run", [None, 0.3, 0.2]), "online")
    assert [bundle.name for bundle in choice.bundles] == ["v0", "v1", "v2"]
    assert choice.checkpoints == 3
    assert "upper bound" in choice.note


def test_online_plays_a_checkpoint_that_comes_twice_once(tmp_path):
    store = run(tmp_path / "run", [0.3, 0.2])
    append(store, Checkpoint(3000, "v0", 0.3))
    assert [bundle.name for bundle in choose(store, "online").bundles] == ["v0", "v1"]


@pytest.mark.parametrize(("top_k", "expected"), [(0, "v2"), (1, "v0"), (2, "v3"), (3, "v1")])
def test_offline_is_the_checkpoint_of_the_kth_smallest_loss(tmp_path, top_k, expected):
    # Losses 0.2 (v2) < 0.3 (v0, the earlier of equals) = 0.3 (v3) < 0.9 (v1).
    choice = choose(run(tmp_path / "run", [0.3, 0.9, 0.2, 0.3]), "offline", top_k)
    assert [bundle.name for bundle in choice.bundles] == [expected]
    assert choice.checkpoints == 4


def test_offline_beyond_the_checkpoints_is_refused_with_the_range(tmp_path):
    store = run(tmp_path / "run", [0.3, 0.2])
    with pytest.raises(ConfigError, match="2 checkpoints, expected 0 to 1"):
        choose(store, "offline", 2)


@pytest.mark.parametrize("selection", ["online", "offline"])
def test_a_bundle_has_no_checkpoints_to_choose_among(tmp_path, selection):
    with pytest.raises(BundleError, match=f"no {CHECKPOINTS}: selection={selection}"):
        choose(shell(tmp_path / "v0"), selection)


def test_offline_needs_the_loss_of_every_checkpoint(tmp_path):
    store = run(tmp_path / "run", [0.3, None])
    with pytest.raises(BundleError, match=r"1 of 2 checkpoints have no imitation loss"):
        choose(store, "offline")


@pytest.mark.parametrize("line", ['{"version": "v0"}', '{"step": 1, "version": 2}'])
def test_a_damaged_list_is_told(tmp_path, line):
    store = run(tmp_path / "run", [0.3])
    (store / CHECKPOINTS).write_text(f"{line}\n")
    with pytest.raises(BundleError, match="not a list of checkpoints"):
        choose(store, "offline")


def test_a_checkpoint_that_was_removed_is_named(tmp_path):
    store = run(tmp_path / "run", [0.3, 0.2])
    (store / "v0" / "manifest.json").unlink()
    (store / "v0").rmdir()
    with pytest.raises(BundleError, match="v0: no such bundle"):
        choose(store, "online")
