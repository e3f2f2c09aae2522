"""Downloads from a server on the loopback that breaks off, lies, and is not there."""

import dataclasses
import fcntl
import hashlib
import socket

import h5py
import numpy as np
import pytest

from controller.errors import DataError
from policies.data.download import address, fetch
from policies.data.names import BASE_URL, published
from policies.errors import DownloadFailed
from tests.policies.data.servers import Behaviour, serving

HOPPER = published()["hopper-medium-v2"]
PATH = f"/{HOPPER.path}"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    for name in ("ONEBEAT_DATA_URL", "ONEBEAT_DATASETS", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def content(tmp_path):
    path = tmp_path / "made.hdf5"
    with h5py.File(path, "w") as file:
        for name in ("observations", "actions", "rewards", "terminals"):
            file[name] = np.random.default_rng(0).standard_normal(20_000)
    return path.read_bytes()


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def get(base, store, dataset=HOPPER, **options):
    return fetch(dataset, base=base, directory=store, pause_s=0.0, **options)


def sha(content):
    return hashlib.sha256(content).hexdigest()


def names(store):
    return sorted(path.name for path in store.iterdir())


def test_a_download_with_progress(content, store):
    seen = []
    with serving(Behaviour({PATH: content})) as base:
        found = get(base, store, on_progress=lambda done, total: seen.append((done, total)))
    assert found.path.read_bytes() == content
    assert (found.sha256, found.size, found.downloaded) == (sha(content), len(content), True)
    assert found.checked == "nothing"
    assert seen[-1] == (len(content), len(content))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert names(store) == ["hopper-medium-v2.hdf5", "hopper-medium-v2.sha256"]
    assert (store / "hopper-medium-v2.sha256").read_text() == (
        f"{sha(content)}  hopper-medium-v2.hdf5\n"
    )


def test_what_is_there_is_checked_and_not_downloaded_again(content, store):
    behaviour = Behaviour({PATH: content})
    with serving(behaviour) as base:
        get(base, store)
        again = get(base, store)
    assert (again.checked, again.downloaded, len(behaviour.asked)) == ("first download", False, 1)
    (store / "hopper-medium-v2.hdf5").write_bytes(content[:-1] + b"x")
    with pytest.raises(DataError, match=r"is not that of hopper-medium-v2 .*first download"):
        get("http://127.0.0.1:1", store)


def test_broken_connections_are_taken_up_where_they_broke(content, store):
    behaviour = Behaviour({PATH: content}, break_after=[1000, 250_000])
    with serving(behaviour) as base:
        found = get(base, store)
    assert found.path.read_bytes() == content
    assert [each[1] for each in behaviour.asked] == ["", "bytes=1000-", "bytes=251000-"]


def test_what_a_broken_call_left_is_taken_up_by_the_next(content, store):
    behaviour = Behaviour({PATH: content}, break_after=[100] * 5)
    with serving(behaviour) as base:
        with pytest.raises(DownloadFailed, match=r"broken off 5 times, at 500 of .* goes on from"):
            get(base, store)
        assert names(store) == ["hopper-medium-v2.hdf5.part", "hopper-medium-v2.hdf5.tag"]
        assert get(base, store).path.read_bytes() == content
    assert behaviour.asked[-1][1] == "bytes=500-"


def test_a_file_that_was_replaced_meanwhile_is_begun_anew(content, store):
    behaviour = Behaviour({PATH: content[::-1]}, break_after=[100] * 5)
    with serving(behaviour) as base:
        with pytest.raises(DownloadFailed):
            get(base, store)
        behaviour.files[PATH], behaviour.tag = content, '"two"'
        assert get(base, store).path.read_bytes() == content


@pytest.mark.parametrize("change", [{"ranges": False}, {"tag": ""}])
def test_servers_that_give_no_parts_begin_anew(content, store, change):
    behaviour = dataclasses.replace(Behaviour({PATH: content}, break_after=[1000]), **change)
    with serving(behaviour) as base:
        assert get(base, store).path.read_bytes() == content


def test_a_part_longer_than_the_servers_file_is_thrown_away(content, store):
    store.mkdir()
    (store / "hopper-medium-v2.hdf5.part").write_bytes(content + b"more")
    (store / "hopper-medium-v2.hdf5.tag").write_text('"one"')
    behaviour = Behaviour({PATH: content})
    with serving(behaviour) as base:
        assert get(base, store).path.read_bytes() == content
    assert len(behaviour.asked) == 2


def test_a_busy_server_is_asked_again(content, store):
    behaviour = Behaviour({PATH: content}, statuses=[503, 500])
    with serving(behaviour) as base:
        assert get(base, store).path.read_bytes() == content


def test_a_missing_file_is_asked_for_once_and_says_what_to_do(store):
    behaviour = Behaviour()
    with (
        serving(behaviour) as base,
        pytest.raises(DownloadFailed, match=r"status 404 .*: on a machine that can, download"),
    ):
        get(base, store)
    assert len(behaviour.asked) == 1
    assert names(store) == []


def test_without_a_route_it_says_what_to_do(store):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(DownloadFailed) as caught:
            get(base, store)
    text = str(caught.value)
    assert "cannot be reached" in text
    assert f"{base}/{HOPPER.path}" in text
    assert "pass the file's path instead of hopper-medium-v2" in text
    assert str(store / "hopper-medium-v2.hdf5") in text
    assert "ONEBEAT_DATA_URL" in text


def test_an_unknown_host_and_an_address_that_is_none(store):
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        get("http://nowhere.invalid", store)
    with pytest.raises(DownloadFailed, match="expected an address that begins http"):
        get("nowhere", store)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "0" * 64}, "sha256 .*, expected 0000000000000000"),
        ({"size": 12}, "bytes, expected 12"),
    ],
)
def test_a_file_that_is_not_the_published_one_is_thrown_away(content, store, change, said):
    dataset = dataclasses.replace(HOPPER, **change)
    with (
        serving(Behaviour({PATH: content})) as base,
        pytest.raises(DataError, match=f"is not hopper-medium-v2: .*{said}"),
    ):
        get(base, store, dataset)
    assert names(store) == []


@pytest.mark.parametrize("length", [8, 64])
def test_a_known_checksum_is_that_of_the_whole_or_its_beginning(content, store, length):
    dataset = dataclasses.replace(HOPPER, sha256=sha(content)[:length])
    with serving(Behaviour({PATH: content})) as base:
        assert get(base, store, dataset).checked == "published"


def test_a_page_instead_of_a_file_is_thrown_away(store):
    page = b"<html>please log in</html>"
    with (
        serving(Behaviour({PATH: page})) as base,
        pytest.raises(DataError, match="not an HDF5 file; thrown away"),
    ):
        get(base, store)
    assert names(store) == []


def test_two_at_once_do_not_write_one_file(content, store):
    store.mkdir()
    with (store / "hopper-medium-v2.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            serving(Behaviour({PATH: content})) as base,
            pytest.raises(DownloadFailed, match="by another process"),
        ):
            get(base, store)


def test_a_full_disk_is_told_before(content, store, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 10}))
    with (
        serving(Behaviour({PATH: content})) as base,
        pytest.raises(DownloadFailed, match=r"are to come and 10 are free; .*ONEBEAT_DATASETS"),
    ):
        get(base, store)


def test_addresses_are_d4rls_unless_a_mirror_is_named(monkeypatch):
    assert address(HOPPER) == f"{BASE_URL}/gym_mujoco_v2/hopper_medium-v2.hdf5"
    monkeypatch.setenv("ONEBEAT_DATA_URL", "https://mirror.example/d4rl/")
    assert address(HOPPER) == "https://mirror.example/d4rl/gym_mujoco_v2/hopper_medium-v2.hdf5"
    assert address(HOPPER, "http://b").startswith("http://b/gym")
