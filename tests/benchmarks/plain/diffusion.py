"""Diffusion models as policies (Wang et al. 2023; Ho et al. 2020)."""

import numpy as np
import torch


def extract(table, t, like):
    """Take the entry of each row's step, shaped to multiply ``like`` by."""
    return table.gather(-1, t).reshape(len(t), *[1] * (like.dim() - 1))


class DiffusionPolicy:
    """A chain of ``steps`` steps whose noise a network predicts."""

    def __init__(self, steps=5, b_min=0.1, b_max=10.0, device="cpu"):
        t = np.arange(1, steps + 1)
        alphas = np.exp(-b_min / steps - 0.5 * (b_max - b_min) * (2 * t - 1) / steps**2)
        betas, bars = 1.0 - alphas, np.cumprod(alphas)
        before = np.append(1.0, bars[:-1])
        variance = betas * (1.0 - before) / (1.0 - bars)
        tables = {
            "signal": np.sqrt(bars),
            "noise": np.sqrt(1.0 - bars),
            "recip": np.sqrt(1.0 / bars),
            "recip_noise": np.sqrt(1.0 / bars - 1.0),
            "mean_clean": betas * np.sqrt(before) / (1.0 - bars),
            "mean_noisy": (1.0 - before) * np.sqrt(alphas) / (1.0 - bars),
            "log_variance": np.log(np.clip(variance, 1e-20, None)),
        }
        self.steps = steps
        self.tables = {
            name: torch.tensor(table, dtype=torch.float32, device=device)
            for name, table in tables.items()
        }

    def loss(self, network, target, state, action, step, draws):
        noise = draws.normal("imitation", *action.shape)
        t = draws.integers(self.steps, len(action))
        noisy = extract(self.tables["signal"], t, action) * action
        noisy = noisy + extract(self.tables["noise"], t, action) * noise
        return ((network(noisy, t, state) - noise) ** 2).mean()

    def back(self, network, x, t, state, noise):
        """Take one step of the chain back."""
        own = {name: extract(table, t, x) for name, table in self.tables.items()}
        clean = own["recip"] * x - own["recip_noise"] * network(x, t, state)
        mean = own["mean_clean"] * clean.clamp(-1.0, 1.0) + own["mean_noisy"] * x
        moving = (t != 0).float().reshape(-1, 1)
        return mean + moving * (0.5 * own["log_variance"]).exp() * noise

    def sample(self, network, state, action_size, draws, purpose):
        rows = len(state)
        x = draws.normal(purpose, rows, action_size)
        for step in reversed(range(self.steps)):
            t = torch.full((rows,), step, device=state.device, dtype=torch.long)
            noise = draws.normal(purpose, rows, action_size)
            x = self.back(network, x, t, state, noise)
        return x.clamp(-1.0, 1.0)
