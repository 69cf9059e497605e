"""RNG seeds that follow from a place in training; needs numpy and torch alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# Purposes; the same place in training has another seed for each.
MODEL, DATA, SAMPLING = range(3)


class Seeds:
    """Seeds of all generators (Python, numpy, torch), from the numbers of a place in training.

    Args:
        where: The place: purpose, seed of the run, epoch, index and the like.
    """

    def __init__(self, *where: int) -> None:
        words = np.random.SeedSequence(where).generate_state(5)
        self.numpy = words[:4]
        self.python = self.torch = int(words[3]) << 32 | int(words[4])

    def set(self) -> None:
        """Seed this process, and its GPUs."""
        random.seed(self.python)
        np.random.seed(self.numpy)
        torch.manual_seed(self.torch)


@contextmanager
def seeded_cpu(seeds: Seeds) -> Iterator[None]:
    """Seed the generators on the CPU with ``seeds``; restore their states at the end."""
    python, numpy, generator = random.getstate(), np.random.get_state(), torch.default_generator
    state = generator.get_state()
    random.seed(seeds.python)
    np.random.seed(seeds.numpy)
    generator.manual_seed(seeds.torch)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        generator.set_state(state)


@contextmanager
def seeded(seeds: Seeds) -> Iterator[None]:
    """Seed the generators on the CPU and the current GPU; restore their states at the end."""
    # Without a context on a GPU, there is no state to restore.
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices), seeded_cpu(seeds):
        if devices:
            torch.cuda.manual_seed(seeds.torch)
        yield
