"""Consistency models as policies (Ding & Jin 2024; constants of their code)."""

import math

import torch

EPS, TOP, RHO, SIGMA_DATA = 0.002, 80.0, 7.0, 0.5


def expand(x, like):
    """Give ``x`` (B,) trailing dimensions to multiply ``like`` (B, A) by."""
    return x.reshape(-1, *[1] * (like.dim() - 1))


class ConsistencyPolicy:
    """f(s, a, tau) = c_skip(tau) a + c_out(tau) F(a, tau, s), without c_in, tau embedded raw.

    Args:
        steps: network evaluations behind an action.
        s0: levels the curriculum begins with.
        s1: levels it ends with.
        period: updates in which it gets there; it begins again after them.
        scale: weigh the loss by 100 / (tau_{n+1} - tau_n).
    """

    def __init__(self, steps=2, s0=2, s1=150, period=50_000, scale=True):
        self.steps, self.s0, self.s1, self.period, self.scale = steps, s0, s1, period, scale

    def denoise(self, network, x, sigma, state):
        c_skip = SIGMA_DATA**2 / ((sigma - EPS) ** 2 + SIGMA_DATA**2)
        c_out = (sigma - EPS) * SIGMA_DATA / (sigma**2 + SIGMA_DATA**2) ** 0.5
        return expand(c_skip, x) * x + expand(c_out, x) * network(x, sigma, state)

    def level_count(self, step):
        k = step % self.period
        grown = k / self.period * (self.s1**2 - self.s0**2) + self.s0**2
        return math.ceil(math.sqrt(grown) - 1) + 1

    def boundaries(self, count, device):
        low, high = EPS ** (1 / RHO), TOP ** (1 / RHO)
        levels = [(low + i / (count - 1) * (high - low)) ** RHO for i in range(count)]
        return torch.tensor(levels, device=device)

    def loss(self, network, target, state, action, step, draws):
        rows = len(action)
        count = self.level_count(step)
        boundaries = self.boundaries(count, action.device)
        index = draws.integers(count - 1, rows)
        low, high = boundaries[index], boundaries[index + 1]
        noise = draws.normal("imitation", *action.shape)
        with torch.no_grad():
            goal = self.denoise(target, action + expand(low, noise) * noise, low, state)
        guess = self.denoise(network, action + expand(high, noise) * noise, high, state)
        weight = 100.0 / (high - low) if self.scale else torch.ones_like(low)
        return (expand(weight, guess) * (guess - goal) ** 2).mean()

    def grid(self):
        if self.steps == 1:
            return [TOP]
        return torch.linspace(TOP, 2.0, self.steps).tolist()

    def sample(self, network, state, action_size, draws, purpose):
        rows = len(state)
        top, *lower = self.grid()
        ones = torch.ones(rows, device=state.device)
        x = draws.normal(purpose, rows, action_size) * top
        x = self.denoise(network, x, ones * top, state)
        for sigma in lower:
            noise = draws.normal(purpose, rows, action_size)
            x = x + math.sqrt(sigma**2 - EPS**2) * noise
            x = self.denoise(network, x, ones * sigma, state)
        return x.clamp(-1.0, 1.0)
