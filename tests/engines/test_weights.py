"""Weights that only serve: held until an engine took them."""

import gc
import weakref

import torch

from agentrl.engines.weights import LoadedWeights


async def test_weights_that_are_handed_over_are_let_go_and_loaded_again_for_a_restart() -> None:
    loads: list[torch.nn.Module] = []

    def load() -> torch.nn.Module:
        loads.append(torch.nn.Linear(2, 2))
        return loads[-1]

    module = torch.nn.Linear(2, 2)
    alive = weakref.ref(module)
    publisher = LoadedWeights(module, load)
    del module
    async with publisher.open() as weights:
        assert {name for name, _ in weights.named_tensors()} == {"weight", "bias"}
        assert alive() is not None
    del weights
    gc.collect()
    assert alive() is None
    assert loads == []
    async with publisher.open() as weights:
        assert weights.version == 0
    assert len(loads) == 1
