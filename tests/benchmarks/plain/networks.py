"""Networks of torch's own modules. Their weights are named as in our bundles."""

import math
from itertools import pairwise

import torch
from torch import nn


class TimeEmbedding(nn.Module):
    """(B,) noise levels -> (B, features): sines and cosines, two linear layers."""

    def __init__(self, features, hidden):
        super().__init__()
        self.half = features // 2
        self.expand = nn.Linear(features, hidden)
        self.mish = nn.Mish()
        self.contract = nn.Linear(hidden, features)

    def forward(self, level):
        slope = math.log(10_000) / (self.half - 1)
        frequencies = torch.exp(-slope * torch.arange(self.half, device=level.device))
        angles = level[:, None] * frequencies[None, :]
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.contract(self.mish(self.expand(waves)))


class PolicyMLP(nn.Module):
    """F(x, level, state): three hidden layers with Mish."""

    def __init__(self, state_size, action_size, hidden=(256, 256, 256), features=16, inner=32):
        super().__init__()
        self.time = TimeEmbedding(features, inner)
        widths = [action_size + features + state_size, *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.mish = nn.Mish()
        self.head = nn.Linear(widths[-1], action_size)

    def forward(self, x, level, state):
        h = torch.cat([x, self.time(level), state], dim=-1)
        for layer in self.layers:
            h = self.mish(layer(h))
        return self.head(h)


class Block(nn.Module):
    """x + Linear(ReLU(Linear(LayerNorm(Dropout(x)))))."""

    def __init__(self, width, dropout):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, h):
        return h + self.contract(torch.relu(self.expand(self.norm(self.drop(h)))))


class PolicyResNet(nn.Module):
    """F(x, level, state): residual blocks with layer norm."""

    def __init__(
        self, state_size, action_size, width=256, blocks=3, dropout=0.1, features=16, inner=32
    ):
        super().__init__()
        self.time = TimeEmbedding(features, inner)
        self.enter = nn.Linear(action_size + features + state_size, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(blocks))
        self.head = nn.Linear(width, action_size)

    def forward(self, x, level, state):
        h = torch.relu(self.enter(torch.cat([x, self.time(level), state], dim=-1)))
        for block in self.blocks:
            h = block(h)
        return self.head(torch.relu(h))


class QNetwork(nn.Module):
    """Q(s, a) of (B, 1)."""

    def __init__(self, state_size, action_size, hidden=(256, 256, 256), layer_norm=False):
        super().__init__()
        widths = [state_size + action_size, *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        if layer_norm:
            self.norms = nn.ModuleList(nn.LayerNorm(width) for width in hidden)
        self.layer_norm = layer_norm
        self.mish = nn.Mish()
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, state, action):
        h = torch.cat([state, action], dim=-1)
        for index, layer in enumerate(self.layers):
            h = layer(h)
            if self.layer_norm:
                h = self.norms[index](h)
            h = self.mish(h)
        return self.head(h)


class Critic(nn.Module):
    """Two value networks that know nothing of each other."""

    def __init__(self, state_size, action_size, hidden=(256, 256, 256)):
        super().__init__()
        self.q1 = QNetwork(state_size, action_size, hidden)
        self.q2 = QNetwork(state_size, action_size, hidden)

    def forward(self, state, action):
        return self.q1(state, action), self.q2(state, action)

    def q_min(self, state, action):
        return torch.min(*self.forward(state, action))
