from dataclasses import replace

from learner_support import make_trajectory, make_turn

from agentrl.algorithms.samples import samples_of
from agentrl.contracts.media import Media
from agentrl.contracts.trajectory import TurnKind

POLICY, TOOL, USER = TurnKind.POLICY, TurnKind.TOOL, TurnKind.USER


def test_a_linear_dialogue_is_one_sample_that_ends_with_its_last_trained_token() -> None:
    trajectory = make_trajectory(
        make_turn(POLICY, [10, 11], 0, 3),
        make_turn(TOOL, [20, 21], 1, 5),
        make_turn(POLICY, [12], 2, 7),
        make_turn(TOOL, [22, 23], 3, 8),  # cut off: nothing follows, so it is trimmed
    )
    (one,) = samples_of(trajectory)
    assert one.token_ids.tolist() == [1, 2, 3, 10, 11, 20, 21, 12]
    assert one.loss_mask.tolist() == [0, 0, 0, 1, 1, 0, 0, 1]
    assert [round(float(x), 2) for x in one.logprobs] == [0, 0, 0, -0.1, -0.11, 0, 0, -0.12]
    assert one.turn_starts == (0, 3, 5, 7)
    assert one.trajectory_id == "t"


def test_a_branch_at_a_turns_end_trains_the_shared_turn_once_in_the_first_leaf() -> None:
    trajectory = make_trajectory(
        make_turn(POLICY, [10, 11], 0, 3),
        make_turn(TOOL, [20], 1, 5),
        make_turn(POLICY, [12], 2, 6),
        make_turn(USER, [30], 1, 5),  # also behind turn 1
        make_turn(POLICY, [13], 4, 6),
    )
    first, second = samples_of(trajectory)
    assert first.token_ids.tolist() == [1, 2, 3, 10, 11, 20, 12]
    assert first.loss_mask.tolist() == [0, 0, 0, 1, 1, 0, 1]
    assert second.token_ids.tolist() == [1, 2, 3, 10, 11, 30, 13]
    assert second.loss_mask.tolist() == [0, 0, 0, 0, 0, 0, 1]


def test_a_branch_inside_a_policy_turn_leaves_the_rest_to_the_leaf_that_has_it() -> None:
    trajectory = make_trajectory(
        make_turn(POLICY, [10, 11, 12], 0, 3),  # thinking that the template strips
        make_turn(USER, [30], 1, 4),
        make_turn(POLICY, [13, 14], 2, 5),
    )
    stripped, rest = samples_of(trajectory)
    assert stripped.token_ids.tolist() == [1, 2, 3, 10, 11, 12]
    assert stripped.loss_mask.tolist() == [0, 0, 0, 1, 1, 1]
    assert rest.token_ids.tolist() == [1, 2, 3, 10, 30, 13, 14]
    assert rest.loss_mask.tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_a_leaf_that_holds_more_of_a_turn_than_the_first_trains_what_is_left() -> None:
    trajectory = make_trajectory(
        make_turn(POLICY, [10, 11, 12], 0, 3),
        make_turn(POLICY, [13], 1, 4),  # stands on the first token of turn 1
        make_turn(POLICY, [14], 1, 6),  # on all of it, so turn 1 is no leaf itself
    )
    first, second = samples_of(trajectory)
    assert first.token_ids.tolist() == [1, 2, 3, 10, 13]
    assert first.loss_mask.tolist() == [0, 0, 0, 1, 1]
    assert second.token_ids.tolist() == [1, 2, 3, 10, 11, 12, 14]
    assert second.loss_mask.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_masked_and_dropped_trajectories_have_no_samples() -> None:
    turn = make_turn(POLICY, [10, 11], 0, 3)
    assert samples_of(make_trajectory(turn, dropped=True)) == []
    assert samples_of(make_trajectory(replace(turn, mask=[0, 0]))) == []


def test_media_of_what_is_left_come_along() -> None:
    seen, unseen = Media.of("image", b"a"), Media.of("image", b"b")
    trajectory = make_trajectory(
        make_turn(TOOL, [20], 0, 3, media=(seen,)),
        make_turn(POLICY, [10], 1, 4),
        make_turn(TOOL, [21], 2, 5, media=(unseen,)),
    )
    (one,) = samples_of(trajectory)
    assert one.media == (seen,)
