import numpy as np
import pytest

from agentrl.contracts.engine import Prompt, Sampling
from agentrl.contracts.media import Media
from agentrl.engines.scripted import ScriptedEngine
from agentrl.engines.tokens import completion, token_list
from agentrl.errors import EngineError


def test_one_version_stands_for_every_token() -> None:
    done = completion([5, 6], [-0.5, -1.0], 3, "stop")
    assert done.versions.tolist() == [3, 3]
    assert [done.token_ids.dtype, done.logprobs.dtype, done.versions.dtype] == [
        np.int32,
        np.float32,
        np.int32,
    ]


def test_each_token_may_have_its_own_version() -> None:
    assert completion([5, 6], [0.0, 0.0], [3, 4], "length").versions.tolist() == [3, 4]


async def test_a_prompt_with_an_image_is_refused_by_every_engine() -> None:
    seen = Prompt(token_ids=np.array([1], np.int32), media=(Media.of("image", b"png"),))
    with pytest.raises(EngineError, match=r"1 media \(image\), and the policy has no eyes yet"):
        token_list(seen, "a")
    with pytest.raises(EngineError, match="no eyes yet"):
        await ScriptedEngine([[1]]).generate(seen, Sampling(max_tokens=1), session="a")
