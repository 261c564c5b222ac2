"""One rollout, printed turn by turn: the policy calls a tool, a sandbox runs the program.

    python examples/rollout_turn_by_turn.py [checkpoint folder]

Without a checkpoint the calculator's policy is untrained and babbles; train one with
`make quickstart` and name its `checkpoints/step-N`.
"""

import asyncio
import sys
from pathlib import Path

from agentrl import load_config, open_rollout
from agentrl.traces.transcript import transcript


async def main(checkpoint: Path | None) -> None:
    """Roll out the first test problem."""
    config = load_config("tasks/calculator/train.yaml")
    async with open_rollout(config, weights=checkpoint) as host:
        sample = host.task.samples("test")[0]
        group = await host.rollout.run_group(sample, group_id="example", size=1, seed=0)
    print(transcript(group.trajectories[0]))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
