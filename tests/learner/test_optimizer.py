import copy

import pytest
import torch

from agentrl.config.train import OptimizerConfig
from agentrl.errors import RunError
from agentrl.learner.optimizer import Optimizer, schedule_factor


def test_schedules_warm_up_and_fall_as_named() -> None:
    constant = OptimizerConfig(warmup_steps=3)
    assert [schedule_factor(i, constant, 10) for i in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    linear = OptimizerConfig(schedule="linear", min_ratio=0.5)
    assert [schedule_factor(i, linear, 4) for i in (0, 2, 4, 9)] == [1.0, 0.75, 0.5, 0.5]
    cosine = OptimizerConfig(schedule="cosine")
    assert schedule_factor(2, cosine, 4) == pytest.approx(0.5)
    assert schedule_factor(4, cosine, 4) == pytest.approx(0.0)


def test_bfloat16_weights_learn_steps_below_their_resolution() -> None:
    layer = torch.nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    optimizer = Optimizer(layer, OptimizerConfig(learning_rate=1e-3), total_steps=100)
    for _ in range(20):
        # bfloat16 has steps of 1/128 just below 1: a single step of 1e-3 would be lost
        layer(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        optimizer.accumulate()
        optimizer.step()
    assert layer.weight.item() == pytest.approx(0.98, abs=0.004)


def test_gradients_of_several_passes_add_up_and_are_clipped() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    optimizer = Optimizer(layer, OptimizerConfig(max_grad_norm=0.1), total_steps=1)
    for value in (1.0, 2.0):
        layer(torch.full((1, 1), value)).sum().backward()
        optimizer.accumulate()
    assert optimizer.step() == pytest.approx(3.0)
    assert layer.weight.grad is None


def test_a_gradient_that_is_not_finite_stops_the_run_and_keeps_the_weights() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    before = layer.weight.item()
    optimizer = Optimizer(layer, OptimizerConfig(), total_steps=1)
    layer(torch.full((1, 1), float("inf"))).sum().backward()
    with pytest.raises(RunError, match="gradient norm"):
        optimizer.step()
    assert layer.weight.item() == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_state_goes_on_exactly(dtype: torch.dtype) -> None:
    def steps(layer: torch.nn.Linear, optimizer: Optimizer, count: int) -> None:
        for _ in range(count):
            layer(torch.ones(1, 2, dtype=dtype)).square().sum().backward()
            optimizer.accumulate()
            optimizer.step()

    config = OptimizerConfig(learning_rate=1e-2, schedule="cosine", warmup_steps=2)
    torch.manual_seed(0)
    one = torch.nn.Linear(2, 1, dtype=dtype)
    optimizer = Optimizer(one, config, total_steps=10)
    steps(one, optimizer, 3)
    other = torch.nn.Linear(2, 1, dtype=dtype)
    other.load_state_dict(one.state_dict())
    resumed = Optimizer(other, config, total_steps=10)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(one, optimizer, 3)
    steps(other, resumed, 3)
    assert torch.equal(one.weight, other.weight)
    assert resumed.learning_rate == optimizer.learning_rate
