"""Where the random numbers of the baseline come from: torch, or what someone else has drawn."""

import torch


class Draws:
    """Fresh numbers. ``purpose`` says what for; it matters to :class:`Given` alone."""

    def __init__(self, device="cpu"):
        self.device = device

    def normal(self, purpose, *shape):
        return torch.randn(shape, device=self.device)

    def integers(self, high, *shape):
        """Even on 0 .. high - 1."""
        return torch.randint(high, shape, device=self.device)

    def coin(self):
        return int(torch.rand(()) > 0.5)


class Given:
    """Numbers that were drawn elsewhere.

    Args:
        normals: purpose -> arrays, handed out in order; zeros once there are no more, for the
            noise that the last step of a chain draws and multiplies by 0.
        even: numbers of [0, 1) that choose the integers.
        side: of the coin.
    """

    def __init__(self, normals, even, side=0):
        self.normals = {purpose: list(arrays) for purpose, arrays in normals.items()}
        self.even, self.side = even, side

    def normal(self, purpose, *shape):
        left = self.normals[purpose]
        drawn = left.pop(0) if left else torch.zeros(shape, device=self.even.device)
        assert drawn.shape == shape, f"{purpose}: {tuple(drawn.shape)}, expected {shape}"
        return drawn

    def integers(self, high, *shape):
        return (self.even.reshape(shape) * high).long().clamp(max=high - 1)

    def coin(self):
        return self.side
