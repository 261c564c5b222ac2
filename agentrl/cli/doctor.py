"""`agentrl doctor`: is this machine, and this configuration, ready for a run?

Every check prints one line, ok, warning or failed, the latter two with their remedy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agentrl.cli.guard import guarded
from agentrl.cli.train import Overrides

if TYPE_CHECKING:
    from agentrl.config.run import RunConfig
    from agentrl.contracts.tool import BaseTool

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
        yield _vllm()
    yield _model(config)
    yield _data(config)
    yield from _tools(config)


def _python() -> Check:
    import platform

    return Check(name="python", status="ok", detail=platform.python_version())


def _torch() -> Check:
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        return Check(
            name="torch",
            status="failed",
            detail=f"{error.name} is not installed: pip install 'agentrl[train]'",
        )
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


def _vllm() -> Check:
    from agentrl.engines.vllm.versions import check_version, installed_version
    from agentrl.errors import NotReadyError

    try:
        check_version()
    except NotReadyError as error:
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


def _model(config: "RunConfig") -> Check:
    from agentrl.errors import AgentRLError
    from agentrl.learner.models import chat_template, load_policy
    from agentrl.plugins.registry import load_interactions, load_tools
    from agentrl.rollout.render import Renderer
    from agentrl.rollout.schemas import schema_dict
    from agentrl.rollout.template_check import verify_template

    try:
        policy = load_policy(config.model, base=config.base_dir, seed=config.seed)
        template = chat_template(config.model, config.base_dir)
        renderer = Renderer(
            policy.tokenizer,
            chat_template=template,
            generation_stop_ids=policy.generation_stop_ids,
            tool_format=config.rollout.tool_format,
        )
        tools = load_tools(config.tools, config.base_dir).values()
        users = bool(load_interactions(config.interaction, config.base_dir))
        report = verify_template(renderer, [schema_dict(tool) for tool in tools], users=users)
    except ModuleNotFoundError as error:
        return Check(
            name="model",
            status="failed",
            detail=f"{error.name} is not installed: pip install 'agentrl[train]'",
        )
    except AgentRLError as error:
        return Check(name="model", status="failed", detail=str(error))
    size = sum(p.numel() for p in policy.model.parameters()) / 1e6
    detail = f"{size:.1f}M parameters, {policy.model.dtype}, {policy.device}"
    status: Literal["ok", "warning"] = "warning" if tools and not report.native else "ok"
    return Check(name="model", status=status, detail="; ".join([detail, *report.lines()]))


def _data(config: "RunConfig") -> Check:
    from agentrl.data.task import load_task
    from agentrl.errors import AgentRLError

    try:
        task = load_task(config.task, base=config.base_dir, seed=config.seed)
        counts = {
            "train": len(task.samples("train")),
            "test": len(task.samples("test")) if config.eval.samples else 0,
            "demonstrations": len(task.demonstrations()) if config.sft.steps else 0,
        }
    except AgentRLError as error:
        return Check(name="data", status="failed", detail=str(error))
    return Check(
        name="data", status="ok", detail=", ".join(f"{n} {name}" for name, n in counts.items() if n)
    )


def _tools(config: "RunConfig") -> Iterator[Check]:
    """Open every tool and call it once with arguments made from its schema."""
    from agentrl.errors import AgentRLError
    from agentrl.plugins.registry import load_interactions, load_tools

    try:
        tools = load_tools(config.tools, config.base_dir)
        interactions = load_interactions(config.interaction, config.base_dir)
    except AgentRLError as error:
        yield Check(name="tools", status="failed", detail=str(error))
        return
    for tool in tools.values():
        yield _smoke_call(config, tool, _create_kwargs(config, tool.name))
    for name in interactions:
        yield Check(name="interaction", status="ok", detail=f"{name} imports")


def _create_kwargs(config: "RunConfig", name: str) -> dict[str, Any]:
    """Return what the first training sample passes to the tool's `create`."""
    from agentrl.data.task import load_task
    from agentrl.errors import AgentRLError

    try:
        task = load_task(config.task, base=config.base_dir, seed=config.seed)
        sample = task.samples("train")[0]
    except (AgentRLError, IndexError):
        # The data check reports it.
        return {}
    return dict(sample.tools_kwargs.get(name, {}).get("create_kwargs", {}))


def _smoke_call(config: "RunConfig", tool: "BaseTool", create_kwargs: dict[str, Any]) -> Check:
    import asyncio

    from agentrl.contracts.tool import ToolOutcome, ToolRecord
    from agentrl.errors import AgentRLError
    from agentrl.rollout.services import RunServices
    from agentrl.rollout.single_call import call_once, example_arguments

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
    broken = record.outcome in (ToolOutcome.INFRA_ERROR, ToolOutcome.TIMEOUT)
    return Check(
        name=name,
        status="failed" if broken else "ok",
        detail=f" called with {arguments}: {record.outcome}, {record.error or repr(shown)}",
    )
