from agentrl.data.order import index_at


def indices(*positions: int, seed: int) -> list[int]:
    return [index_at(position, 10, seed=seed) for position in positions]


def test_every_position_is_seen_once_an_epoch_in_an_order_of_its_own() -> None:
    first, second = indices(*range(10), seed=1), indices(*range(10, 20), seed=1)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert indices(*range(5, 15), seed=1) == first[5:] + second[:5]
    assert indices(*range(10), seed=2) != first
