from dataclasses import replace

import numpy as np
import pytest
from learner_support import CPU, make_sample

from agentrl.contracts.media import Media
from agentrl.errors import RunError
from agentrl.learner.batch import Streams, micro_batches

ONE = make_sample([5, 6, 7], [0, 1, 1], [0, -1, -2], advantages=[2] * 3, ref_logprobs=[0, -3, -4])
TWO = make_sample([8, 9], [0, 1], [0, -5], advantages=[-1] * 2, ref_logprobs=[0, -6])


def test_a_packed_batch_is_one_row_of_segments_without_padding() -> None:
    batch = Streams.of([ONE, TWO]).batch(np.array([1, 0]), packed=True, device=CPU)
    assert batch.input_ids_RT.tolist() == [[8, 9, 5, 6, 7]]
    assert batch.position_ids_RT.tolist() == [[0, 1, 0, 1, 2]]
    assert batch.segment_ids_RT.tolist() == [[0, 0, 1, 1, 1]]
    assert batch.loss_mask_RT.tolist() == [[0, 1, 0, 1, 1]]
    assert batch.old_logprobs_RT.tolist() == [[0, -5, 0, -1, -2]]
    assert batch.advantages_RT.tolist() == [[-1, -1, 2, 2, 2]]
    assert batch.ref_logprobs_RT is not None
    assert batch.ref_logprobs_RT.tolist() == [[0, -6, 0, -3, -4]]
    assert batch.weights_RT is None
    assert (batch.num_segments, batch.num_trained, batch.is_packed) == (2, 3, True)


def test_a_padded_batch_has_a_row_for_each_sample() -> None:
    batch = Streams.of([ONE, TWO]).batch(np.array([0, 1]), packed=False, device=CPU)
    assert batch.input_ids_RT.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch.segment_ids_RT.tolist() == [[0, 0, 0], [1, 1, -1]]
    assert batch.loss_mask_RT.tolist() == [[0, 1, 1], [0, 1, 0]]
    assert not batch.is_packed


def test_what_a_batch_says_finds_its_way_back_by_place() -> None:
    streams, chosen = Streams.of([ONE, TWO]), np.array([1, 0])
    assert streams.places(chosen).tolist() == [3, 4, 0, 1, 2]
    for packed in (True, False):
        batch = streams.batch(chosen, packed=packed, device=CPU)
        cells = batch.input_ids_RT[batch.segment_ids_RT >= 0].numpy()
        assert cells.tolist() == streams.token_ids_N[streams.places(chosen)].tolist()


def test_a_stream_that_some_samples_lack_is_refused() -> None:
    other = make_sample([1, 2], [0, 1])
    assert set(Streams.of([ONE, TWO]).optional) == {"ref_logprobs"}
    with pytest.raises(RunError, match="1 of 2 samples have no `advantages`"):
        Streams.of([ONE, other])


def test_the_branches_of_a_trajectory_are_one_sequence() -> None:
    names = ("a", "b", "a", "")
    samples = [replace(make_sample([1, 2, 3], [0, 1, 1]), trajectory_id=name) for name in names]
    streams = Streams.of([*samples, make_sample([1, 2], [0, 1])])
    assert streams.sequences_S.tolist() == [0, 1, 0, 2, 3]
    assert streams.num_sequences == 4
    assert streams.sequence_tokens_S.tolist() == [4, 2, 4, 2, 1]
    assert streams.of_sequences(np.array([3, 0])).tolist() == [4, 0, 2]


@pytest.mark.parametrize(
    ("packed", "limit", "expected"),
    [
        # Lengths 4, 9, 2, 3, longest first: 9, 4, 3, 2.
        (True, 9, [[1], [0, 3, 2]]),
        (True, 8, [[1], [0, 3], [2]]),
        (False, 9, [[1], [0, 3], [2]]),  # 4 x 2 fits, 4 x 3 does not
        (True, 1, [[1], [0], [3], [2]]),
        (True, 100, [[1, 0, 3, 2]]),
    ],
)
def test_micro_batches_are_cut_by_tokens(
    packed: bool, limit: int, expected: list[list[int]]
) -> None:
    lengths = np.array([4, 9, 2, 3])
    plan = micro_batches(lengths, np.arange(4), max_tokens=limit, packed=packed)
    assert [part.tolist() for part in plan] == expected


def test_what_cannot_be_learned_is_refused() -> None:
    with pytest.raises(RunError, match="first token"):
        Streams.of([make_sample([1, 2], [1, 1])])
    with pytest.raises(RunError, match="images"):
        Streams.of([TWO, replace(ONE, media=(Media.of("image", b"x"),))])
