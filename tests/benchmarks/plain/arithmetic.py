"""The multiplications that an update cannot do without."""

from itertools import pairwise


def multiply_adds(config, sizes):
    """Return the multiply-adds of one update of one run: matrix products alone.

    The loss of a consistency policy calls the target and the policy once, and goes back once
    for weights and inputs; that of a diffusion policy has no target. A sample calls its network
    ``steps`` times with one level for all rows, whose embedding is nothing then. The critics are
    asked by the target, by the TD loss, and by L_q, whose gradient goes on to the action; the
    coin of L_q asks both and goes back through one.
    """
    a, d, net, critic = sizes.action, sizes.condition, config.network, config.critic
    deep = sum(x * y for x, y in pairwise(net.hidden)) + net.hidden[-1] * a
    features, inner, width = net.time_features, net.time_hidden, net.hidden[0]
    embedding = features * (2 * inner + width)
    one_level = (a + d) * width + deep
    forward = one_level + embedding
    back = forward + deep + features * (width + inner)
    rows = (2 if config.algorithm.startswith("consistency") else 1) * forward + back
    if config.algorithm in ("consistency_ac", "diffusion_ql"):
        rows += _guided(config, one_level, deep, a * width)
        inputs = a + d
        first, later = inputs * critic.hidden[0], sum(x * y for x, y in pairwise(critic.hidden))
        rows += _valued(config, first, later + critic.hidden[-1], a * critic.hidden[0])
    return config.optimiser.batch * rows


def evaluations(config):
    """Return the network evaluations behind an action."""
    consistency = config.algorithm.startswith("consistency")
    return config.improve.steps if consistency else config.chain.steps


def _guided(config, forward, deep, to_noisy):
    """Return those of sampling: for the target, for L_q, and back through it."""
    n = evaluations(config)
    return n * forward * config.value.max_q + n * (2 * forward + deep) + (n - 1) * to_noisy


def _valued(config, first, later, to_action):
    """Return those of the critics."""
    k, forward = config.critic.count, first + later
    learning = k * (config.value.max_q * forward + 2 * forward + later)
    blamed = 1 if config.improve.q_loss == "coin" else k
    return learning + k * forward + blamed * (later + to_action)
