"""Bundles: exact round trips, every damaged byte found, publishing whole or not at all."""

import os
import shutil

import msgspec
import numpy as np
import pytest

from policies import bundle
from policies.bundle import load_bundle, publish, resolve
from policies.errors import BundleError
from tests.policies.robots import SPEC, toy_bundle

FILES = ["weights", "codec", "golden"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return toy_bundle(tmp_path_factory.mktemp("store"))


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / made.name)


def edit_manifest(root, change):
    file = root / "manifest.json"
    manifest = msgspec.json.decode(file.read_bytes())
    change(manifest)
    file.write_bytes(msgspec.json.encode(manifest))


def test_it_holds_what_it_was_given(made):
    loaded = load_bundle(made)
    assert loaded.version == made.name
    assert loaded.spec == SPEC
    assert loaded.manifest.parent is None
    assert loaded.manifest.training["steps"] == 4
    assert loaded.manifest.data[0].rows == 600
    assert loaded.codec.arrays == ("position", "target")
    assert sorted(loaded.manifest.files) == sorted(f"{name}.safetensors" for name in FILES)
    assert loaded.critics() is None
    with pytest.raises(BundleError, match=r"no critics\.safetensors; the bundle has codec"):
        loaded.arrays("critics")


def test_a_horizon_of_one_is_not_written_and_others_are(made, tmp_path):
    assert "horizon" not in msgspec.json.decode((made / "manifest.json").read_bytes())
    assert load_bundle(made).manifest.horizon == 1
    longer = load_bundle(toy_bundle(tmp_path, horizon=3))
    assert longer.manifest.horizon == 3
    assert bundle.describe_bundle(longer.path)["actions_per_answer"] == 3
    assert longer.golden["actions"].shape == (8, 3, 2)


def test_the_version_names_generation_and_content(made, tmp_path):
    assert made.name.startswith("v0001-")
    assert toy_bundle(tmp_path / "again").name == made.name
    assert toy_bundle(tmp_path / "other", steps=5).name != made.name


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_byte_of_a_file_is_found(copy, name):
    file = copy / f"{name}.safetensors"
    whole = bytearray(file.read_bytes())
    for position in (0, len(whole) // 2, len(whole) - 1):
        damaged = whole.copy()
        damaged[position] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(BundleError, match=rf"{name}\.safetensors: sha256 is .* was changed"):
            load_bundle(copy)


def test_any_flipped_byte_of_the_manifest_is_found(copy):
    file = copy / "manifest.json"
    whole = bytearray(file.read_bytes())
    for position in range(0, len(whole), 37):
        if whole[position] in b" \n":
            continue
        damaged = whole.copy()
        damaged[position] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(BundleError, match=r"manifest\.json|safetensors"):
            load_bundle(copy)


def test_a_cut_file_is_found(copy):
    file = copy / "weights.safetensors"
    os.truncate(file, 100)
    with pytest.raises(BundleError, match=r"weights.safetensors: 100 bytes, manifest says \d+"):
        load_bundle(copy)


def test_a_missing_file_is_found(copy):
    (copy / "golden.safetensors").unlink()
    with pytest.raises(BundleError, match=r"golden.safetensors: No such file"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(format="onebeat.bundle/9"), "format is 'onebeat.bundle/9'"),
        (lambda m: m.update(color="red"), "unknown field `color`"),
        (lambda m: m.pop("sampler"), "missing required field `sampler`"),
        (lambda m: m["spec"].update(rate_hz=1.0), "the file was changed"),
        (lambda m: m.update(files={}), "the file was changed"),
    ],
)
def test_a_changed_manifest_is_refused(copy, change, said):
    edit_manifest(copy, change)
    with pytest.raises(BundleError, match=f"manifest.json: .*{said}"):
        load_bundle(copy)


def test_a_manifest_that_is_not_one(copy):
    for text in (b"", b"[]", b"\xff\xfe", b"nonsense"):
        (copy / "manifest.json").write_bytes(text)
        with pytest.raises(BundleError, match=r"manifest\.json"):
            load_bundle(copy)


def test_a_path_that_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="no such bundle"):
        load_bundle(tmp_path / "none")
    with pytest.raises(BundleError, match=r"neither a bundle .* nor a store"):
        load_bundle(tmp_path)
    (tmp_path / "current").symlink_to("gone")
    with pytest.raises(BundleError, match="current: points to gone, which is not a bundle"):
        load_bundle(tmp_path)


def test_publish_makes_it_current_and_resolve_follows(made, tmp_path):
    store = tmp_path / "store"
    first = publish(made, store)
    assert first == store / made.name
    assert os.readlink(store / "current") == made.name
    assert resolve(store) == first.resolve()
    second = publish(toy_bundle(tmp_path / "other", steps=5), store)
    assert load_bundle(store).version == second.name
    assert load_bundle(first).version == made.name
    assert publish(made, store) == first
    assert load_bundle(store).version == made.name
    assert sorted(p.name for p in store.iterdir()) == sorted(["current", made.name, second.name])


def test_a_damaged_bundle_is_not_published(made, copy, tmp_path):
    store = tmp_path / "store"
    publish(made, store)
    (copy / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        publish(copy, store)
    assert load_bundle(store).version == made.name


def test_a_save_that_fails_leaves_nothing(made, tmp_path, monkeypatch):
    loaded = load_bundle(made)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "_write", full)
    with pytest.raises(OSError, match="No space"):
        publish(loaded.path, tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def test_described_for_people(made):
    facts = bundle.describe_bundle(made)
    assert facts["version"] == made.name
    assert facts["sees"] == "position, target"
    assert facts["evaluations_per_action"] == 1
    assert np.issubdtype(type(facts["weights"]), np.integer) or facts["weights"] > 0
