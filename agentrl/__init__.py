"""agentrl: agentic multi-turn reinforcement learning with tools that really execute.

The names below are imported when first used, so that `import agentrl` stays cheap and needs
neither torch nor transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentrl.config.load import load_config
    from agentrl.config.run import RunConfig
    from agentrl.contracts.interaction import BaseInteraction
    from agentrl.contracts.sample import Sample
    from agentrl.contracts.sandbox import RunRequest, RunResult, RunStatus, Sandbox
    from agentrl.contracts.task import BaseTask, Demonstration
    from agentrl.contracts.tool import BaseTool, Services, ToolResponse, ToolSchema
    from agentrl.contracts.trajectory import Group, Trajectory, Turn
    from agentrl.errors import AgentRLError, InfraError, ToolError
    from agentrl.trainer.runtime import RolloutHost, open_rollout
    from agentrl.trainer.trainer import Trainer, TrainResult

__version__ = "0.1.0"

_HOMES = {
    "AgentRLError": "agentrl.errors",
    "BaseInteraction": "agentrl.contracts.interaction",
    "BaseTask": "agentrl.contracts.task",
    "BaseTool": "agentrl.contracts.tool",
    "Demonstration": "agentrl.contracts.task",
    "Group": "agentrl.contracts.trajectory",
    "InfraError": "agentrl.errors",
    "RunConfig": "agentrl.config.run",
    "RunRequest": "agentrl.contracts.sandbox",
    "RunResult": "agentrl.contracts.sandbox",
    "RunStatus": "agentrl.contracts.sandbox",
    "RolloutHost": "agentrl.trainer.runtime",
    "Sample": "agentrl.contracts.sample",
    "Sandbox": "agentrl.contracts.sandbox",
    "Services": "agentrl.contracts.tool",
    "ToolError": "agentrl.errors",
    "ToolResponse": "agentrl.contracts.tool",
    "ToolSchema": "agentrl.contracts.tool",
    "TrainResult": "agentrl.trainer.trainer",
    "Trainer": "agentrl.trainer.trainer",
    "Trajectory": "agentrl.contracts.trajectory",
    "Turn": "agentrl.contracts.trajectory",
    "load_config": "agentrl.config.load",
    "open_rollout": "agentrl.trainer.runtime",
}

__all__ = [
    "AgentRLError",
    "BaseInteraction",
    "BaseTask",
    "BaseTool",
    "Demonstration",
    "Group",
    "InfraError",
    "RolloutHost",
    "RunConfig",
    "RunRequest",
    "RunResult",
    "RunStatus",
    "Sample",
    "Sandbox",
    "Services",
    "ToolError",
    "ToolResponse",
    "ToolSchema",
    "TrainResult",
    "Trainer",
    "Trajectory",
    "Turn",
    "load_config",
    "open_rollout",
]


def __getattr__(name: str) -> Any:
    """Import an exported name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'agentrl' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
