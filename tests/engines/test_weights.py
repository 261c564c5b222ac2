"""Weights that only serve: held until an engine took them."""

import gc
import weakref

import torch

from agentrl.engines.weights import LoadedWeights, ModuleWeights


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


def test_a_tied_parameter_comes_once_and_its_other_name_is_told() -> None:
    tied = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    tied["b"].weight = tied["a"].weight
    weights = ModuleWeights(module=tied)
    assert [name for name, _ in weights.named_tensors()] == ["a.weight", "a.bias", "b.bias"]
    assert weights.tied_names() == {"b.weight": "a.weight"}
