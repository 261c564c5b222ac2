"""`agentrl doctor`: is this machine, and this configuration, ready for a run?

Every check prints one line, ok, warning or failed, the latter two with their remedy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agentrl.cli.guard import guarded
from agentrl.cli.train import Overrides

if TYPE_CHECKING:
    from agentrl.config.run import RunConfig
    from agentrl.contracts.sample import Sample
    from agentrl.contracts.tool import BaseTool
    from agentrl.trainer.content import Plugins

STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One line of the report."""

    name: str
    status: Literal["ok", "warning", "failed"]
    detail: str


@guarded
def doctor(
    config: Annotated[
        str | None, typer.Argument(metavar="[CONFIG]", help="A YAML file to check as well.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Check the machine, and a configuration's model, template, tools and data."""
    from rich.console import Console

    from agentrl.config.load import load_config

    console = Console()
    failed = 0
    resolved = load_config(config, overrides or []) if config else None
    for check in _checks(resolved):
        style = STYLES[check.status]
        console.print(f"[{style}]{check.status:<8}[/{style}] [bold]{check.name:<14}[/bold]", end="")
        console.print(check.detail, markup=False, highlight=False, soft_wrap=True)
        failed += check.status == "failed"
    if failed:
        typer.echo(f"{failed} check{'s' if failed > 1 else ''} failed", err=True)
        raise typer.Exit(3)


def _checks(config: "RunConfig | None") -> Iterator[Check]:
    yield _python()
    yield _torch()
    yield _disk(config)
    yield _sandbox(config)
    if config is None:
        return
    if config.engine.type == "vllm":
        yield _vllm(config.engine.python)
    yield from _content(config)


def _python() -> Check:
    import platform

    return Check(name="python", status="ok", detail=platform.python_version())


def _torch() -> Check:
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        return _missing("torch", error)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    if torch.cuda.is_available():
        return Check(
            name="torch", status="ok", detail=f"{versions}, {torch.cuda.get_device_name()}"
        )
    return Check(
        name="torch",
        status="ok",
        detail=f"{versions}, no GPU: {torch.get_num_threads()} CPU threads",
    )


def _vllm(python: str | None) -> Check:
    from agentrl.engines.vllm.versions import check_version, installed_version
    from agentrl.errors import ConfigError, NotReadyError

    try:
        if python is not None:
            from agentrl.engines.vllm.interpreter import check_python

            return Check(name="vllm", status="ok", detail=f"{check_python(python)} of {python}")
        check_version()
    except (ConfigError, NotReadyError) as error:
        return Check(name="vllm", status="failed", detail=str(error))
    return Check(name="vllm", status="ok", detail=str(installed_version()))


def _disk(config: "RunConfig | None") -> Check:
    import shutil
    from pathlib import Path

    folder = (config.output_dir if config else Path("runs")).absolute()
    existing = next(p for p in [folder, *folder.parents] if p.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    if free_gb < 2:
        return Check(
            name="disk",
            status="warning" if free_gb > 0.2 else "failed",
            detail=f"{free_gb:.1f} GB free at {existing}; checkpoints need room: set output_dir",
        )
    return Check(name="disk", status="ok", detail=f"{free_gb:.0f} GB free at {existing}")


def _sandbox(config: "RunConfig | None") -> Check:
    import asyncio

    from agentrl.config.sandbox import AutoSandboxConfig
    from agentrl.contracts.sandbox import RunRequest
    from agentrl.errors import AgentRLError
    from agentrl.rollout.services import RunServices

    async def probe() -> Check:
        services = RunServices(config.sandbox if config else AutoSandboxConfig())
        try:
            sandbox = await services.sandbox()
            result = await sandbox.run(RunRequest(code="print(6 * 7)"))
            if result.stdout.strip() != "42":
                return Check(
                    name="sandbox",
                    status="failed",
                    detail=f"{sandbox.isolation()}: print(6 * 7) gave {result.status}: "
                    f"{result.stdout or result.stderr!r}",
                )
            return Check(
                name="sandbox",
                status="warning" if sandbox.name == "local" else "ok",
                detail=f"{sandbox.isolation()}; a program ran in {result.duration_s * 1e3:.0f} ms",
            )
        except AgentRLError as error:
            return Check(name="sandbox", status="failed", detail=str(error))
        finally:
            await services.close()

    return asyncio.run(probe())


def _content(config: "RunConfig") -> Iterator[Check]:
    """Check what the configuration names: model and template, data, every tool."""
    from agentrl.errors import AgentRLError

    try:
        from agentrl.trainer.content import Plugins

        plugins = Plugins.load(config)
    except ModuleNotFoundError as error:
        yield _missing("plugins", error)
        return
    except AgentRLError as error:
        yield Check(name="plugins", status="failed", detail=str(error))
        return
    yield from _model(config, plugins)
    yield from _learning(config, plugins)
    first: Mapping[str, Any] = {}
    try:
        samples = plugins.samples("train")
        first = samples[0].tools_kwargs
        yield _data(config, plugins, samples)
    except AgentRLError as error:
        yield Check(name="data", status="failed", detail=str(error))
    for name, tool in plugins.tools.items():
        yield _smoke_call(config, tool, dict(first.get(name, {}).get("create_kwargs", {})))
    for name in plugins.interactions:
        yield Check(name="interaction", status="ok", detail=f"{name} imports")


def _model(config: "RunConfig", plugins: "Plugins") -> Iterator[Check]:
    """Check device, tokenizer and template; no weights are loaded."""
    from agentrl.errors import AgentRLError

    try:
        from agentrl.learner.models import (
            choose_device,
            choose_dtype,
            load_tokenizer,
        )
        from agentrl.trainer.content import check_template, open_renderer

        device = choose_device(config.model.device)
        tokenizer = load_tokenizer(config.model, base=config.base_dir, seed=config.seed)
        renderer = open_renderer(config, tokenizer)
        lines = check_template(renderer, plugins)
    except ModuleNotFoundError as error:
        yield _missing("model", error)
        return
    except AgentRLError as error:
        yield Check(name="model", status="failed", detail=str(error))
        return
    dtype = choose_dtype(config.model.dtype, device)
    yield Check(name="model", status="ok", detail=f"{renderer.name}, {dtype}, {device}")
    taught = bool(plugins.tools) and not renderer.ways.native
    for line in lines:
        warns = taught and "taught" in line
        yield Check(name="template", status="warning" if warns else "ok", detail=line)


def _learning(config: "RunConfig", plugins: "Plugins") -> Iterator[Check]:
    """Check that the algorithm and the rewards are there and take their options."""
    from agentrl.errors import AgentRLError
    from agentrl.rewards.scoring import load_scorers
    from agentrl.rollout.services import RunServices

    try:
        from agentrl.algorithms.registry import build_algorithm

        build_algorithm(config.algorithm, base=config.base_dir)
        load_scorers(config, plugins.task, RunServices(config.sandbox), base=config.base_dir)
    except ModuleNotFoundError as error:
        yield _missing("algorithm", error)
    except AgentRLError as error:
        yield Check(name="learning", status="failed", detail=str(error))
    else:
        sources = ", ".join(entry.source for entry in config.rewards)
        detail = f"{config.algorithm.type}, rewarded by {sources}"
        yield Check(name="learning", status="ok", detail=detail)


def _data(config: "RunConfig", plugins: "Plugins", train: "Sequence[Sample]") -> Check:
    from agentrl.plugins.check import check_samples

    check_samples(train, plugins.tools, plugins.interactions)
    counts = {
        "train": len(train),
        "test": len(plugins.samples("test")) if config.eval.samples else 0,
        "demonstrations": len(plugins.demonstrations()) if config.sft.steps else 0,
    }
    detail = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return Check(name="data", status="ok", detail=detail)


def _missing(name: str, error: ModuleNotFoundError) -> Check:
    detail = f"{error.name} is not installed: pip install 'agentrl-toolkit[train]'"
    return Check(name=name, status="failed", detail=detail)


def _smoke_call(config: "RunConfig", tool: "BaseTool", create_kwargs: dict[str, Any]) -> Check:
    import asyncio

    from agentrl.cli.single_call import call_once, example_arguments
    from agentrl.contracts.tool import ToolOutcome, ToolRecord
    from agentrl.errors import AgentRLError
    from agentrl.rollout.services import RunServices

    arguments = example_arguments(tool)

    async def call() -> ToolRecord:
        services = RunServices(config.sandbox)
        try:
            record, _ = await call_once(tool, arguments, services, create_kwargs=create_kwargs)
            return record
        finally:
            await services.close()

    name = f"tool {tool.name}"
    try:
        record = asyncio.run(call())
    except AgentRLError as error:
        return Check(name=name, status="failed", detail=f" called with {arguments}: {error}")
    shown = " ".join(record.response.split())[:100]
    said = record.failure.message if record.failure else repr(shown)
    broken = record.outcome in (ToolOutcome.INFRA_ERROR, ToolOutcome.TIMEOUT)
    return Check(
        name=name,
        status="failed" if broken else "ok",
        detail=f" called with {arguments}: {record.outcome}, {said}",
    )
