"""The baseline beside one of our learners: same weights, same batches, same random numbers."""

import torch

from policies.learners import make_learner
from policies.learning import NEWEST
from tests.benchmarks.plain.agents import ActorCritic, Cloning
from tests.benchmarks.plain.consistency import ConsistencyPolicy
from tests.benchmarks.plain.diffusion import DiffusionPolicy
from tests.benchmarks.plain.draws import Given
from tests.benchmarks.plain.networks import Critic, PolicyMLP

LOSSES = ("loss", "q_loss", "policy_loss")


def tensors(arrays, k=None):
    """Return a state dict of one network, or of number ``k`` of an ensemble."""
    return {
        name: torch.from_numpy(array if k is None else array[k]) for name, array in arrays.items()
    }


def policy_of(config, device="cpu"):
    """Return the plain policy of a config; it has no others than those the published code has."""
    if config.algorithm.startswith("diffusion"):
        chain = config.chain
        return DiffusionPolicy(chain.steps, chain.b_min, chain.b_max, device)
    loss = config.loss
    assert (config.noise.kind, loss.distance, loss.levels) == ("paper", "l2", "uniform")
    assert loss.growth != "doubling"
    assert loss.xi == 100.0
    assert config.improve.steps == 1 or config.improve.grid == "released"
    return ConsistencyPolicy(
        config.improve.steps,
        loss.levels_start,
        loss.levels_end + (loss.growth == "square_root"),
        loss.restart or config.optimiser.steps,
        loss.weighting == "inverse_step",
    )


def plain_of(config, sizes, learner=None, run=0, draws=None):
    """Return the plain agent of a config, with the weights of a learner's run if there is one."""
    optimiser, network, value = config.optimiser, config.network, config.value
    assert (optimiser.warmup, optimiser.weight_decay, optimiser.served) == (0, 0.0, NEWEST)
    assert optimiser.final_rate in (0.0, 1.0)
    consistency = config.algorithm.startswith("consistency")
    guided = config.algorithm in ("consistency_ac", "diffusion_ql")
    average = config.improve.slow if guided else config.loss.target if consistency else NEWEST
    assert not (guided and consistency) or average == config.loss.target
    assert not average.every or not average.grow
    actor = PolicyMLP(
        sizes.condition,
        sizes.action,
        network.hidden,
        network.time_features,
        network.time_hidden,
    )
    if learner is not None:
        actor.load_state_dict(tensors(learner.networks["online"].to_arrays(run)))
    settings = {
        "learning_rate": optimiser.learning_rate,
        "grad_norm": optimiser.grad_clip,
        "decay_steps": None if optimiser.final_rate else optimiser.steps,
        "ema_decay": average.decay,
        "ema_every": average.every,
        "ema_after": average.after,
        "draws": draws,
    }
    policy, actor = policy_of(config, sizes.device), actor.to(sizes.device)
    if not guided:
        return Cloning(policy, actor, **settings)
    assert value.decay or optimiser.final_rate
    assert value.aggregate == "min"
    critic = Critic(sizes.condition, sizes.action, config.critic.hidden)
    if learner is not None:
        arrays = learner.networks["critic"].to_arrays(run)
        critic.q1.load_state_dict(tensors(arrays, 0))
        critic.q2.load_state_dict(tensors(arrays, 1))
    return ActorCritic(
        policy,
        actor,
        critic.to(sizes.device),
        eta=config.improve.eta,
        q_term=config.improve.q_loss,
        q_norm=value.q_norm,
        max_q=value.max_q,
        discount=value.discount,
        tau=value.tau,
        critic_rate=value.learning_rate,
        **settings,
    )


def plain_batch(batch, run=0):
    """Return the columns of one run as the plain agents take them."""
    reward, alive = batch.reward[run, :, None], batch.alive[run, :, None]
    return batch.condition[run], batch.action[run], reward, batch.next_condition[run], alive


class Shadow:
    """Plain agents that go through what a learner of the same config goes through.

    A second learner, never updated, tells what the first one draws and throws.

    Args:
        config: of the learner.
        sizes: of the learner.
        runs: whose agents there are.
    """

    def __init__(self, config, sizes, runs=(0,)):
        self.twin = make_learner(config, sizes)
        self.max_q = config.value.max_q
        self.agents = {run: plain_of(config, sizes, self.twin, run) for run in runs}

    def rows(self, table, shape):
        """Return the rows that the learner's next batch has."""
        twin = self.twin
        return torch.randint(len(table), shape, generator=twin.generator, device=twin.sizes.device)

    def update(self, batch, step):
        """Do update ``step`` of each agent; return the figures of each run."""
        variant = self.twin.prepare(step)
        actor, normals = getattr(self.twin, "actor", self.twin), {}
        if actor is not self.twin:
            rows = batch.reward.shape[1]
            normals["ahead"] = actor.sampling_noise(rows * self.max_q)
            normals["policy"] = actor.sampling_noise(rows)
        z, even = actor.draw(batch)
        normals["imitation"] = z[None]
        figures = {}
        for run, agent in self.agents.items():
            own = {purpose: list(each[:, run]) for purpose, each in normals.items()}
            agent.draws = Given(own, even[run], variant[-1] if variant else 0)
            figures[run] = agent.update(plain_batch(batch, run))
        return figures

    def loss_difference(self, ours, theirs):
        """Return the largest relative difference of the losses of an update."""
        return max(
            abs(float(ours[name][run]) - figures[name]) / abs(figures[name])
            for run, figures in theirs.items()
            for name in LOSSES
            if name in figures and name in ours
        )

    def weight_difference(self, learner, run=0):
        """Return how far the weights of each network ended apart, by how far they went.

        Adam's steps have the length of the learning rate however small a gradient is, so that a
        weight whose gradient is rounding may go either way: one figure for a whole network.
        """
        agent = self.agents[run]
        pairs = {"online": agent.actor}
        if "target" in learner.networks:
            pairs["target"] = agent.ema
        if "critic" in learner.networks:
            pairs |= {"critic": agent.critic, "critic_target": agent.critic_target}
            pairs |= {"slow": agent.ema} if "slow" in learner.networks else {}
        return {name: self._apart(learner, name, run, agent) for name, agent in pairs.items()}

    def _apart(self, learner, name, run, module):
        ours, begun = (each.networks[name].to_arrays(run) for each in (learner, self.twin))
        state = module.state_dict()
        apart = gone = 0.0
        for key, array in ours.items():
            if name.startswith("critic"):
                theirs = torch.stack([state[f"q1.{key}"], state[f"q2.{key}"]])
            else:
                theirs = state[key]
            apart += float((theirs.cpu() - torch.from_numpy(array)).square().sum())
            gone += float(torch.from_numpy(array - begun[key]).square().sum())
        return (apart / gone) ** 0.5 if gone else apart**0.5
