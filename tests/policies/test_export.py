"""An exported file does what the bundle does, in the robot's own units."""

import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from controller.acting import ActSettings
from controller.cli import main
from controller.errors import ConfigError
from policies.bundle import load_bundle
from policies.engine import load_policy
from policies.errors import BundleError
from policies.export import ExportPolicyConfig, export
from policies.make_sampler import make_sampler
from policies.model import SamplerSettings
from policies.noise import NoiseSource
from tests.policies.robots import toy_bundle
from tests.policies.test_engine import reseal
from tests.policies.weights import CRITICS_OF, MODELS, bundle_of

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def expected(root, seen, noise, act):
    bundle = load_bundle(root)
    sampler = make_sampler(bundle.manifest, bundle.weights, act=act)
    return bundle.codec.decode_action(sampler(bundle.codec.encode_observation(seen), noise))


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.parametrize("name", MODELS)
def test_the_file_gives_the_actions_of_the_bundle(name, steps, rows, tmp_path):
    several = name.startswith(("consistency", "diffusion"))
    if steps and not several:
        pytest.skip("takes one step")
    root = bundle_of(tmp_path, MODELS[name])
    act = ActSettings(steps=steps)
    told = export(ExportPolicyConfig(str(root), str(tmp_path / "sub" / "p.onnx"), act))
    assert told["version"] == root.name
    assert told["bytes"] == (tmp_path / "sub" / "p.onnx").stat().st_size
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((rows, 5)).astype(np.float32)
    noise = rng.standard_normal((told["steps"], rows, 3)).astype(np.float32)
    run = session(told["file"])
    names = [entry.name for entry in run.get_inputs()]
    given = {"observation": seen} | ({"noise": noise} if "noise" in names else {})
    assert set(names) == set(given)
    assert (name == "deterministic") == ("noise" not in names)
    (action,) = run.run(["action"], given)
    assert (action.shape, action.dtype) == ((rows, 3), np.float32)
    np.testing.assert_allclose(action, expected(root, seen, noise, act), atol=3e-5)


@pytest.mark.parametrize("name", ["consistency-mish", "diffusion-blocks", "gaussian-mean"])
def test_a_file_of_chunks_gives_them_in_rows(name, tmp_path):
    root = bundle_of(tmp_path, MODELS[name], horizon=4)
    told = export(ExportPolicyConfig(str(root), str(tmp_path / "p.onnx")))
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((7, 5)).astype(np.float32)
    noise = rng.standard_normal((told["steps"], 7, 12)).astype(np.float32)
    (action,) = session(told["file"]).run(["action"], {"observation": seen, "noise": noise})
    bundle = load_bundle(root)
    sampler = make_sampler(bundle.manifest, bundle.weights)
    encoded = sampler(bundle.codec.encode_observation(seen), noise)
    assert action.shape == (7, 4, 3)
    np.testing.assert_allclose(action, bundle.codec.decode_chunk(encoded), atol=3e-5)


def test_actions_stay_within_the_limits(tmp_path):
    root = bundle_of(tmp_path, MODELS["gaussian-mean"])
    told = export(ExportPolicyConfig(str(root), str(tmp_path / "p.onnx")))
    spec = load_bundle(root).spec
    low, high = spec.action.bounds()
    noise = 50 * np.random.default_rng(0).standard_normal((1, 200, 3)).astype(np.float32)
    given = {"observation": np.zeros((200, 5), np.float32), "noise": noise}
    (action,) = session(told["file"]).run(["action"], given)
    assert (np.float32(low) <= action).all()
    assert (action <= np.float32(high)).all()
    assert (action == np.float32(low)).any()
    assert (action == np.float32(high)).any()


def test_the_file_says_whose_it_is(tmp_path):
    root = bundle_of(tmp_path, MODELS["diffusion-relu"])
    told = export(ExportPolicyConfig(str(root), str(tmp_path / "p.onnx")))
    facts = {entry.key: entry.value for entry in onnx.load(told["file"]).metadata_props}
    about = load_bundle(root).manifest
    assert (facts["version"], facts["kind"]) == (about.version, "diffusion")
    assert (facts["task"], facts["spec_digest"]) == ("sizes", about.spec_digest)
    assert {key: told[key] for key in facts} == facts
    shapes = {
        entry.name: [d.dim_value or d.dim_param for d in entry.type.tensor_type.shape.dim]
        for entry in (*onnx.load(told["file"]).graph.input, *onnx.load(told["file"]).graph.output)
    }
    assert shapes == {"observation": ["N", 5], "noise": [5, "N", 3], "action": ["N", 3]}


def test_equal_constants_are_kept_once(tmp_path):
    """The inner layers of a long chain are those of a short one."""
    root = bundle_of(tmp_path, MODELS["diffusion-mish"])
    sizes = [
        export(ExportPolicyConfig(str(root), str(tmp_path / "p.onnx"), ActSettings(steps=k)))
        for k in (4, 5)
    ]
    inner = 4 * (24 * 20 + 20)
    assert sizes[1]["bytes"] - sizes[0]["bytes"] < 3 * inner + 4 * 24 * 8 + 4000


def test_what_cannot_be_exported_is_said(tmp_path):
    root = bundle_of(
        tmp_path, MODELS["diffusion-mish"], SamplerSettings(candidates=4), CRITICS_OF["mish"]
    )
    with pytest.raises(BundleError, match=r"chooses among 4 candidates.*act.candidates=1"):
        export(ExportPolicyConfig(str(root), str(tmp_path / "p.onnx")))
    alone = ActSettings(candidates=1)
    assert export(ExportPolicyConfig(str(root), str(tmp_path / "p.onnx"), alone))["steps"] == 5
    with pytest.raises(BundleError, match=r"act.steps=9: .* has 5"):
        export(ExportPolicyConfig(str(root), str(tmp_path / "p.onnx"), ActSettings(9, 1)))


def test_a_draw_without_noise_asks_for_none(tmp_path):
    root = bundle_of(tmp_path, MODELS["gaussian-action"])
    middle = ActSettings(temperature=0.0)
    told = export(ExportPolicyConfig(str(root), str(tmp_path / "p.onnx"), middle))
    assert [entry.name for entry in session(told["file"]).get_inputs()] == ["observation"]


def test_a_file_that_cannot_be_written_is_said(tmp_path):
    root = bundle_of(tmp_path, MODELS["deterministic"])
    with pytest.raises(ConfigError, match=r"out=.*: Is a directory, expected a file"):
        export(ExportPolicyConfig(str(root), str(tmp_path)))


def test_arrays_that_do_not_fit_are_not_exported(tmp_path):
    loaded = load_bundle(bundle_of(tmp_path, MODELS["consistency-mish"]))
    weights = {k: v for k, v in loaded.weights.items() if k != "layers.1.bias"}
    root = reseal(loaded, weights, tmp_path / "out")
    with pytest.raises(BundleError, match=r"do not fit.*layers\.1\.bias: missing"):
        export(ExportPolicyConfig(str(root), str(tmp_path / "p.onnx")))


def test_it_needs_no_torch(tmp_path):
    root = bundle_of(tmp_path, MODELS["consistency-blocks"])
    script = (
        "import sys\n"
        "from policies.export import ExportPolicyConfig, export\n"
        "export(ExportPolicyConfig(sys.argv[1], sys.argv[2]))\n"
        "assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", script, str(root), str(tmp_path / "p.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_verb_writes_what_the_policy_does_between_robot_and_robot(tmp_path, capsys):
    """This policy sees four of six numbers, normalised by its data, and acts in newtons."""
    root, file = toy_bundle(tmp_path / "store"), tmp_path / "p.onnx"
    codec = load_bundle(root).codec
    assert codec.columns.tolist() == [0, 1, 4, 5]
    assert np.abs(codec.mean).min() > 1e-4
    assert np.abs(codec.scale - 1.0).min() > 1e-4
    assert main(["export", str(root), f"out={file}", "act.steps=2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["steps"], told["version"]) == (str(file), 2, root.name)
    run, policy = session(file), load_policy(root, act=ActSettings(steps=2))
    noise = NoiseSource((2, 1, 2))
    for tick, row in enumerate(np.random.default_rng(0).standard_normal((20, 1, 6))):
        given = {"observation": row.astype(np.float32), "noise": noise.draw(3, tick)}
        np.testing.assert_allclose(run.run(None, given)[0], policy.act(row, 3, tick), atol=2e-5)


@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_without_the_extra_one_line_names_it(module, tmp_path, monkeypatch, capsys):
    root = bundle_of(tmp_path, MODELS["deterministic"])
    monkeypatch.setitem(sys.modules, module, None)
    file, said = tmp_path / "p.onnx", f"{module} is not installed: pip install 'onebeat[onnx]'"
    if module == "onnx":
        assert main(["export", str(root), f"out={file}"]) == 1
        assert not file.exists()
    else:
        assert main(["serve", str(root), "engine=onnx", f"endpoint=ipc://{tmp_path}/s"]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_settings_refuse_what_they_do_not_know():
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"bundel": "x"}, ExportPolicyConfig)
