"""One torch thread: two of them wait for each other when the machine has other work."""

import torch

torch.set_num_threads(1)
