"""The agent: what it begins from, what it learns, and the versions it gives."""

import msgspec
import numpy as np
import pytest
import torch

from controller.acting import ActSettings
from controller.errors import ConfigError, DataError
from policies import train_state
from policies.algos.learner import Batch
from policies.bundle import load_bundle
from policies.engine import load_policy
from policies.errors import BundleError
from policies.finetuning.agent import make_agent, write_candidate
from policies.finetuning.settings import FinetuneConfig, LearnSettings
from policies.learning import ConsistencySettings, RewardSettings
from policies.manifest import DataEntry
from policies.model import (
    ChainSettings,
    ConsistencyModel,
    CriticSettings,
    DiffusionModel,
    GaussianModel,
    NetworkSettings,
    SamplerSettings,
)
from tests.policies.robots import SPEC, toy_bundle, toy_data
from tests.policies.weights import bundle_of, robot

SMALL = CriticSettings(hidden=(16, 16))
ENSEMBLE = CriticSettings(4, (16, 16), "relu", layer_norm=True)
LOSS = ConsistencySettings(levels_end=5)
SEEN = toy_data(40, seed=7).observations
KINDS = ("consistency_ac", "diffusion_ql", "sac")


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    store = tmp_path_factory.mktemp("parents")
    made = {
        name: toy_bundle(store / name, algorithm=name, critic=SMALL, loss=LOSS)
        for name in ("consistency_ac", "consistency_bc", "diffusion_ql", "bc", "iql", "td3_bc")
    }
    return {name: load_bundle(path) for name, path in made.items()}


def config(**learn):
    small = {"batch": 32, "critic": SMALL, "network": NetworkSettings(hidden=(16, 16)), "subset": 0}
    return FinetuneConfig(seed=3, learn=LearnSettings(**(small | learn)))


def fresh(algorithm, **learn):
    return make_agent(config(algorithm=algorithm, **learn), SPEC, None)


def rows_for(agent, seed=0, rows=32):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(1, rows, *shape, generator=g)

    d, a = agent.codec.condition_size, agent.codec.action_size
    alive = torch.ones(1, rows)
    return Batch(normal(d), normal(a).tanh(), normal(), normal(d), alive, normal(a).tanh())


def updated(agent, count=3, begin=0):
    for step in range(begin, begin + count):
        batch = rows_for(agent, step)
        figures = agent.update_critics(batch, step)
        figures |= agent.update_actor(batch.condition, batch, step)
    return figures


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["consistency_ac", "consistency_bc", "diffusion_ql", "bc"])
def test_a_bundle_goes_on_where_it_left_off(parents, name):
    parent = parents[name]
    agent = make_agent(config(), SPEC, parent)
    assert same(agent.policy_arrays(), parent.weights)
    kept = [n for n in agent.learner.networks if n in ("online", "slow", "served")]
    assert len(kept) > 1
    for network in kept:
        assert same(agent.learner.networks[network].to_arrays(), parent.weights)
    assert same(agent.codec.to_arrays(), parent.codec.to_arrays())
    assert agent.codec.arrays == ("position", "target")
    goes_on = {"consistency_bc": "consistency_ac", "bc": "sac"}
    assert agent.algorithm == goes_on.get(name, name)


def test_critics_and_their_targets_go_on_where_the_shape_is_theirs(parents):
    parent = parents["consistency_ac"]
    agent = make_agent(config(), SPEC, parent)
    for network in ("critic", "critic_target"):
        assert same(agent.learner.networks[network].to_arrays(), parent.critics())
    other = make_agent(config(critic=ENSEMBLE), SPEC, parent)
    assert other.learner.critic == ENSEMBLE
    shapes = {name: array.shape for name, array in other.critic_arrays().items()}
    assert shapes["layers.0.weight"] == (4, 16, 4 + 2)


def test_critics_are_of_the_bundles_shape_where_none_is_asked_for(parents):
    agent = make_agent(config(critic=None), SPEC, parents["consistency_ac"])
    assert same(agent.critic_arrays(), parents["consistency_ac"].critics())
    for origin in (parents["consistency_bc"], None):
        settings = config(critic=None, algorithm="consistency_ac")
        assert make_agent(settings, SPEC, origin).learner.critic == CriticSettings()


def test_critics_of_another_shape_are_taught_by_those_of_the_bundle(parents):
    parent = parents["consistency_ac"]
    learn = {"critic": ENSEMBLE, "subset": 2, "lesson_updates": 400, "critic_rate": 3e-3}
    agent = make_agent(config(**learn), SPEC, parent)
    batch = rows_for(agent)
    old = make_agent(config(), SPEC, parent).learner.values
    wanted = old.nets(old.target.fixed, batch.condition, batch.action).mean(1)

    def distance():
        values = agent.learner.values
        q = values.nets(values.target.fixed, batch.condition, batch.action).mean(1)
        return float((q - wanted).square().mean())

    before = distance()
    for step in range(400):
        figures = agent.update_critics(batch, step)
    assert distance() < 0.05 * before
    assert figures["q"].item() == pytest.approx(wanted.mean().item(), rel=1e-5)
    # From then on they learn from rewards: those of the batch are not in the lesson.
    figures = agent.update_critics(batch, 400)
    assert figures["q"].item() != pytest.approx(wanted.mean().item(), rel=1e-3)


def test_critics_of_tuned_rewards_are_left_behind(tmp_path):
    reward = RewardSettings(tune="linear", scale=4.0, shift=-2.0)
    path = toy_bundle(tmp_path, algorithm="consistency_ac", critic=SMALL, reward=reward)
    parent = load_bundle(path)
    agent = make_agent(config(), SPEC, parent)
    assert not same(agent.critic_arrays(), parent.critics())
    assert agent._teacher is None


@pytest.mark.parametrize(
    ("name", "algorithm", "expected"),
    [
        ("td3_bc", None, "learned by td3_bc.*no online form.*consistency_bc.*sac"),
        ("iql", None, "learned by iql.*no online form"),
        ("diffusion_ql", "consistency_ac", "goes on as diffusion_ql.*consistency_bc"),
        ("bc", "diffusion_ql", "goes on as sac.*diffusion_bc, diffusion_ql"),
    ],
)
def test_a_policy_without_an_online_form_is_refused(parents, name, algorithm, expected):
    with pytest.raises(BundleError, match=expected):
        make_agent(config(algorithm=algorithm), SPEC, parents[name])


def test_a_policy_of_chunks_is_refused(tmp_path):
    parent = load_bundle(toy_bundle(tmp_path, horizon=4))
    with pytest.raises(BundleError, match="answers with 4 actions; expected a policy of one"):
        make_agent(config(), SPEC, parent)


def test_a_policy_of_another_robot_is_refused(parents):
    with pytest.raises(BundleError, match="made for"):
        make_agent(config(), robot(), parents["consistency_ac"])


def test_a_squashed_mean_is_no_beginning_for_sac(tmp_path):
    model = GaussianModel(hidden=(8,), squash="mean")
    parent = load_bundle(bundle_of(tmp_path, model))
    renamed = msgspec.structs.replace(parent.manifest, algorithm="sac")
    object.__setattr__(parent, "manifest", renamed)
    with pytest.raises(BundleError, match="no online form"):
        make_agent(config(), parent.spec, parent)


@pytest.mark.parametrize(
    ("learn", "expected"),
    [
        ({"algorithm": None}, "learn.algorithm: nothing to begin with.*sac"),
        ({"subset": 3}, "learn.subset: 3 of an ensemble of 2"),
        ({"eta": 0.0, "imitation": 0.0}, "would learn nothing"),
        ({"algorithm": "sac", "value": {"max_q": 10}}, "max_q: sac draws one action"),
    ],
)
def test_settings_that_make_no_sense_are_refused(learn, expected):
    tree = msgspec.to_builtins(config(algorithm="consistency_ac").learn) | learn
    settings = FinetuneConfig(learn=msgspec.convert(tree, LearnSettings))
    with pytest.raises(ConfigError, match=expected):
        make_agent(settings, SPEC, None)


@pytest.mark.parametrize("algorithm", KINDS)
def test_from_scratch_a_policy_learns_and_becomes_a_bundle(algorithm, tmp_path):
    agent = fresh(algorithm)
    before = agent.policy_arrays(), agent.critic_arrays()
    figures = updated(agent)
    assert all(torch.isfinite(value).all() for value in figures.values())
    assert ("loss" in figures) == (algorithm != "sac")
    assert not same(agent.policy_arrays(), before[0])
    assert not same(agent.critic_arrays(), before[1])
    path = write_candidate(agent, tmp_path, SEEN, (), {"steps": 3}, None)
    made = load_bundle(path)
    assert (made.manifest.algorithm, made.manifest.generation) == (algorithm, 1)
    assert same(made.critics(), agent.critic_arrays())
    assert load_policy(path).version == path.name
    assert not (tmp_path / "current").exists()


def test_from_scratch_the_policy_sees_what_it_is_told_to():
    agent = make_agent(config(algorithm="sac"), SPEC, None, ("target",))
    assert (agent.codec.arrays, agent.codec.condition_size) == (("target",), 2)
    with pytest.raises(DataError, match="gripper is not in the observations"):
        make_agent(config(algorithm="sac"), SPEC, None, ("gripper",))


def test_from_scratch_networks_have_the_shape_that_is_asked_for():
    network = NetworkSettings(hidden=(8, 12))
    made = [fresh(name, network=network).learner.model for name in KINDS]
    assert made == [ConsistencyModel(network), DiffusionModel(network), GaussianModel((8, 12))]


def test_a_version_tells_of_the_one_before_it(parents, tmp_path):
    parent = parents["consistency_ac"]
    agent = make_agent(config(), SPEC, parent)
    updated(agent, 1)
    entry = DataEntry("log", "toy", 40, "0" * 16)
    first = load_bundle(write_candidate(agent, tmp_path, SEEN, (entry,), {"steps": 1}, None))
    assert (first.manifest.parent, first.manifest.generation) == (parent.version, 2)
    assert first.manifest.data == (entry,)
    updated(agent, 1)
    second = load_bundle(
        write_candidate(agent, tmp_path, SEEN, (entry,), {"steps": 2}, first.manifest)
    )
    assert (second.manifest.parent, second.manifest.generation) == (first.version, 3)


def test_the_finest_grid_of_the_first_training_is_kept_over_generations(parents, tmp_path):
    parent, levels = parents["consistency_ac"], []
    for generation in range(2):
        agent = make_agent(config(), SPEC, parent)
        for step in range(3):
            updated(agent, 1, step)
            levels.append(agent.learner.dials["levels"].item())
        training = {"config": {"seed": generation}}
        parent = load_bundle(write_candidate(agent, tmp_path, SEEN, (), training, None))
        assert parent.manifest.training["config"]["seed"] == generation
    assert levels == [LOSS.levels_end + 1] * 6


def test_versions_act_as_the_actors_do_but_for_the_temperature(parents):
    act = ActSettings(steps=3, candidates=7, select="softmax", temperature=1.0)
    settings = msgspec.structs.replace(config(), act=act)
    sampler = make_agent(settings, SPEC, parents["consistency_ac"]).draft((), {}).sampler
    plain = SamplerSettings(steps=3, candidates=7, select="softmax")
    assert sampler == msgspec.structs.replace(plain, grid=sampler.grid)
    settings = msgspec.structs.replace(config(algorithm="sac"), act=ActSettings(temperature=1.0))
    assert make_agent(settings, SPEC, None).draft((), {}).sampler.temperature == 0.0


@pytest.mark.parametrize(("steps", "expected"), [(None, 2), (3, 3)])
def test_an_action_in_training_takes_the_steps_it_is_served_with_or_others(steps, expected):
    agent = fresh("consistency_ac", steps=steps)
    assert len(agent.learner.actor.levels) == expected
    assert agent.learner.actor.sampling_noise(4).shape[0] == expected


def test_a_diffusion_policy_takes_its_whole_chain_in_training(tmp_path):
    chain = ChainSettings(steps=7)
    model = DiffusionModel(NetworkSettings(hidden=(16, 16)), chain)
    parent = load_bundle(bundle_of(tmp_path, model))
    renamed = msgspec.structs.replace(parent.manifest, algorithm="diffusion_bc")
    object.__setattr__(parent, "manifest", renamed)
    agent = make_agent(config(steps=5), parent.spec, parent)
    assert agent.learner.actor.sampling_noise(4).shape[0] == 7


def test_without_imitation_no_imitation_loss_is_computed(monkeypatch):
    agent = fresh("consistency_ac", imitation=0.0)
    monkeypatch.setattr(agent.learner.actor, "imitation", lambda *_: pytest.fail("computed"))
    assert "loss" not in updated(agent)


def test_without_anchors_the_critics_alone_move_the_policy():
    agent = fresh("consistency_ac")
    batch = rows_for(agent)
    figures = agent.update_actor(batch.condition, None, 0)
    assert "loss" not in figures
    assert "policy_loss" in figures
    quiet = fresh("consistency_ac", eta=0.0)
    before = quiet.policy_arrays()
    assert quiet.update_actor(batch.condition, None, 0) == {}
    assert same(quiet.policy_arrays(), before)


@pytest.mark.parametrize("algorithm", KINDS)
def test_an_interrupted_agent_goes_on_bit_for_bit(algorithm, tmp_path):
    learn = {"critic": ENSEMBLE, "subset": 2}
    straight, first, second = (fresh(algorithm, **learn) for _ in range(3))
    updated(straight, 6)
    updated(first, 3)
    train_state.write_state(tmp_path, first.learner, {})
    train_state.restore(train_state.read_state(tmp_path), second.learner)
    updated(second, 3, begin=3)
    for name, network in straight.learner.networks.items():
        assert torch.equal(network.flat, second.learner.networks[name].flat), name


def test_after_a_rollback_the_policy_is_that_version_and_forgets_its_momentum(parents, tmp_path):
    parent = parents["consistency_ac"]
    agent = make_agent(config(actor_rate=1e-2), SPEC, parent)
    updated(agent, 4)
    critics = agent.critic_arrays()
    assert not same(agent.policy_arrays(), parent.weights)
    agent.restore_policy(parent)
    for network in ("online", "slow", "served"):
        assert same(agent.learner.networks[network].to_arrays(), parent.weights)
    assert same(agent.critic_arrays(), critics)
    state = agent.learner.optimisers["actor"].state()
    assert len(state) == 3
    assert not any(value.any() for value in state.values())
    updated(agent, 1)
    assert not same(agent.policy_arrays(), parent.weights)


def test_a_rollback_to_a_policy_of_another_make_is_refused(parents):
    agent = make_agent(config(), SPEC, parents["consistency_ac"])
    with pytest.raises(BundleError, match="of another make"):
        agent.restore_policy(parents["diffusion_ql"])
