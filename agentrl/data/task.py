"""The task that a configuration names."""

from pathlib import Path

from agentrl.config.run import TaskConfig
from agentrl.contracts.task import BaseTask
from agentrl.data.file_task import FileTask
from agentrl.plugins.registry import construct, plugin_class


def load_task(config: TaskConfig, *, base: Path | None, seed: int) -> BaseTask:
    """Build the run's task; without a class, the one that reads verl's and TRL's rows.

    Raises:
        ConfigError: the class cannot be found or built.
    """
    where = f"task {config.class_name!r}" if config.class_name else "task"
    task_class: type[BaseTask] = FileTask
    if config.class_name is not None:
        task_class = plugin_class(config.class_name, ("samples", "score"), where, base)
    task: BaseTask = construct(
        task_class, where, config.config, train=config.train, test=config.test, seed=seed
    )
    return task
