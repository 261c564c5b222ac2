"""What users wrote: tools, interactions and the task, loaded and asked with care.

Their faults are one clear error each; the traceback goes to the log.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agentrl.config.run import RunConfig
from agentrl.contracts.interaction import BaseInteraction
from agentrl.contracts.sample import Sample
from agentrl.contracts.task import BaseTask, Demonstration, Split
from agentrl.contracts.tool import BaseTool, ToolDict
from agentrl.contracts.trajectory import Trajectory
from agentrl.data.task import load_task
from agentrl.errors import ConfigError, RolloutError, RunError, boundary, loading
from agentrl.learner.models import chat_template, generation_stop_ids
from agentrl.plugins.registry import load_interactions, load_tools
from agentrl.templates.check import verify_template
from agentrl.templates.render import Renderer

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plugins:
    """The plugins of a run; they load first, because they cost nothing and are often wrong."""

    tools: dict[str, BaseTool]
    interactions: dict[str, BaseInteraction]
    task: BaseTask

    @classmethod
    def load(cls, config: RunConfig) -> "Plugins":
        """Load what the configuration names.

        Raises:
            ConfigError: a part of it does not work out.
        """
        base = config.base_dir
        return cls(
            tools=load_tools(config.tools, base),
            interactions=load_interactions(config.interaction, base),
            task=load_task(config.task, base=base, seed=config.seed),
        )

    @property
    def schemas(self) -> dict[str, ToolDict]:
        """The tools' schemas, by name, as templates take them."""
        return {name: tool.tool_schema.for_template() for name, tool in self.tools.items()}

    def samples(self, split: Split) -> Sequence[Sample]:
        """Return the task's samples.

        Raises:
            ConfigError: there are none, or the task raised.
        """
        what = f"{type(self.task).__name__}.samples({split!r})"
        samples = _ask(what, lambda: self.task.samples(split))
        if not samples:
            raise ConfigError(f"{what} is empty; expected a sample")
        return samples

    def demonstrations(self) -> Sequence[Demonstration]:
        """Return the task's demonstrations.

        Raises:
            ConfigError: the task raised.
        """
        return _ask(f"{type(self.task).__name__}.demonstrations()", self.task.demonstrations)

    def succeeded(self, trajectory: Trajectory) -> bool:
        """Whether the task counts a trajectory as a success.

        Raises:
            RunError: the task raised.
        """
        try:
            with boundary(f"{type(self.task).__name__}.succeeded"):
                return bool(self.task.succeeded(trajectory))
        except RolloutError as error:
            logger.info("%s", error, exc_info=error)
            raise RunError(str(error)) from error


def open_renderer(config: RunConfig, tokenizer: Any) -> Renderer:
    """Return the renderer of the model's chat template, or of the one that replaces it.

    Raises:
        ConfigError: there is none, or its tool format is not there.
    """
    base = config.base_dir
    return Renderer(
        tokenizer,
        chat_template=chat_template(config.model, base),
        generation_stop_ids=generation_stop_ids(config.model, base=base),
        tool_format=config.rollout.tool_format,
    )


def check_template(renderer: Renderer, plugins: Plugins) -> list[str]:
    """Check the model's chat template; return what there is to say about it, line by line.

    Raises:
        TemplateError: it cannot be used.
    """
    tools, users = list(plugins.schemas.values()), bool(plugins.interactions)
    return verify_template(renderer, tools, users=users).lines()


def _ask(what: str, question: Callable[[], T]) -> T:
    try:
        with loading(what):
            return question()
    except ConfigError as error:
        logger.info("%s", error, exc_info=error)
        raise
