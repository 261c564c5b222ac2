"""agentrl: agentic multi-turn reinforcement learning with tools that really execute.

All that users subclass or call is exported here; docs/api.md lists it by purpose. A name is
imported when it is first used, so that `import agentrl` stays cheap and needs neither torch nor
transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentrl.algorithms.base import Batch as Batch
    from agentrl.algorithms.base import Loss as Loss
    from agentrl.algorithms.base import MinibatchTotals as MinibatchTotals
    from agentrl.algorithms.base import RLAlgorithm as RLAlgorithm
    from agentrl.algorithms.base import TokenScores as TokenScores
    from agentrl.algorithms.grpo import GRPO as GRPO
    from agentrl.algorithms.grpo import GRPOConfig as GRPOConfig
    from agentrl.algorithms.samples import TrainSample as TrainSample
    from agentrl.algorithms.samples import samples_of as samples_of
    from agentrl.config.load import load_config as load_config
    from agentrl.config.run import RunConfig as RunConfig
    from agentrl.config.train import AlgorithmConfig as AlgorithmConfig
    from agentrl.contracts.call import ParsedTurn as ParsedTurn
    from agentrl.contracts.engine import ChatBackend as ChatBackend
    from agentrl.contracts.engine import Completion as Completion
    from agentrl.contracts.engine import Engine as Engine
    from agentrl.contracts.engine import Prompt as Prompt
    from agentrl.contracts.engine import Sampling as Sampling
    from agentrl.contracts.failure import Failure as Failure
    from agentrl.contracts.interaction import BaseInteraction as BaseInteraction
    from agentrl.contracts.media import Media as Media
    from agentrl.contracts.message import ImagePart as ImagePart
    from agentrl.contracts.message import Message as Message
    from agentrl.contracts.message import TextPart as TextPart
    from agentrl.contracts.message import VideoPart as VideoPart
    from agentrl.contracts.metric import Metric as Metric
    from agentrl.contracts.reward import RewardEntry as RewardEntry
    from agentrl.contracts.reward import RewardLedger as RewardLedger
    from agentrl.contracts.sample import Sample as Sample
    from agentrl.contracts.sandbox import RunRequest as RunRequest
    from agentrl.contracts.sandbox import RunResult as RunResult
    from agentrl.contracts.sandbox import RunStatus as RunStatus
    from agentrl.contracts.sandbox import Sandbox as Sandbox
    from agentrl.contracts.sandbox import Session as Session
    from agentrl.contracts.scorer import Scorer as Scorer
    from agentrl.contracts.task import BaseTask as BaseTask
    from agentrl.contracts.task import Demonstration as Demonstration
    from agentrl.contracts.tool import BaseTool as BaseTool
    from agentrl.contracts.tool import FunctionSchema as FunctionSchema
    from agentrl.contracts.tool import Services as Services
    from agentrl.contracts.tool import ToolCall as ToolCall
    from agentrl.contracts.tool import ToolOutcome as ToolOutcome
    from agentrl.contracts.tool import ToolRecord as ToolRecord
    from agentrl.contracts.tool import ToolResponse as ToolResponse
    from agentrl.contracts.tool import ToolSchema as ToolSchema
    from agentrl.contracts.trajectory import Branch as Branch
    from agentrl.contracts.trajectory import Group as Group
    from agentrl.contracts.trajectory import Termination as Termination
    from agentrl.contracts.trajectory import Trajectory as Trajectory
    from agentrl.contracts.trajectory import Turn as Turn
    from agentrl.contracts.trajectory import TurnKind as TurnKind
    from agentrl.engines.scripted import ScriptedEngine as ScriptedEngine
    from agentrl.errors import AgentRLError as AgentRLError
    from agentrl.errors import ConfigError as ConfigError
    from agentrl.errors import InfraError as InfraError
    from agentrl.errors import NotReadyError as NotReadyError
    from agentrl.errors import RunError as RunError
    from agentrl.errors import ToolError as ToolError
    from agentrl.flow.graph import DataflowGraph as DataflowGraph
    from agentrl.flow.node import Node as Node
    from agentrl.flow.node import Refuse as Refuse
    from agentrl.flow.node import Step as Step
    from agentrl.flow.tickets import Ticket as Ticket
    from agentrl.plugins.registry import load_interactions as load_interactions
    from agentrl.plugins.registry import load_tools as load_tools
    from agentrl.runs.reporter import Reporter as Reporter
    from agentrl.sandbox.factory import open_sandbox as open_sandbox
    from agentrl.sandbox.fake import FakeSandbox as FakeSandbox
    from agentrl.traces.store import read_traces as read_traces
    from agentrl.trainer.runtime import RolloutHost as RolloutHost
    from agentrl.trainer.runtime import open_rollout as open_rollout
    from agentrl.trainer.trainer import Trainer as Trainer
    from agentrl.trainer.trainer import TrainResult as TrainResult

__version__ = "0.2.0"

_EXPORTS = {
    "agentrl.algorithms.base": "Batch Loss MinibatchTotals RLAlgorithm TokenScores",
    "agentrl.algorithms.grpo": "GRPO GRPOConfig",
    "agentrl.algorithms.samples": "TrainSample samples_of",
    "agentrl.config.load": "load_config",
    "agentrl.config.run": "RunConfig",
    "agentrl.config.train": "AlgorithmConfig",
    "agentrl.contracts.call": "ParsedTurn",
    "agentrl.contracts.engine": "ChatBackend Completion Engine Prompt Sampling",
    "agentrl.contracts.failure": "Failure",
    "agentrl.contracts.interaction": "BaseInteraction",
    "agentrl.contracts.media": "Media",
    "agentrl.contracts.message": "ImagePart Message TextPart VideoPart",
    "agentrl.contracts.metric": "Metric",
    "agentrl.contracts.reward": "RewardEntry RewardLedger",
    "agentrl.contracts.sample": "Sample",
    "agentrl.contracts.sandbox": "RunRequest RunResult RunStatus Sandbox Session",
    "agentrl.contracts.scorer": "Scorer",
    "agentrl.contracts.task": "BaseTask Demonstration",
    "agentrl.contracts.tool": "BaseTool FunctionSchema Services ToolCall ToolOutcome ToolRecord "
    "ToolResponse ToolSchema",
    "agentrl.contracts.trajectory": "Branch Group Termination Trajectory Turn TurnKind",
    "agentrl.engines.scripted": "ScriptedEngine",
    "agentrl.errors": "AgentRLError ConfigError InfraError NotReadyError RunError ToolError",
    "agentrl.flow.graph": "DataflowGraph",
    "agentrl.flow.node": "Node Refuse Step",
    "agentrl.flow.tickets": "Ticket",
    "agentrl.plugins.registry": "load_interactions load_tools",
    "agentrl.runs.reporter": "Reporter",
    "agentrl.sandbox.factory": "open_sandbox",
    "agentrl.sandbox.fake": "FakeSandbox",
    "agentrl.traces.store": "read_traces",
    "agentrl.trainer.runtime": "RolloutHost open_rollout",
    "agentrl.trainer.trainer": "TrainResult Trainer",
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names.split()}

__all__ = sorted(_HOMES)  # type checkers read the imports above


def __getattr__(name: str) -> Any:
    """Import an exported name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'agentrl' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
