"""Samples against tools and interactions, before the first step instead of in the third hour."""

import logging
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from agentrl.contracts.interaction import BaseInteraction
from agentrl.contracts.sample import Sample
from agentrl.contracts.tool import BaseTool
from agentrl.errors import ConfigError

logger = logging.getLogger(__name__)

AGENTS = (None, "", "tool_agent", "single_turn_agent")
"""Values of `agent_name` that mean the one kind of episode there is; verl's defaults among them."""


def check_samples(
    samples: Iterable[Sample],
    tools: Mapping[str, BaseTool],
    interactions: Mapping[str, BaseInteraction],
) -> None:
    """Check that every sample can be rolled out, some microseconds each.

    Raises:
        ConfigError: one cannot, with its row and what to do.
    """
    absent: set[str] = set()
    for sample in samples:
        offered_tools(sample, tools)
        choose_interaction(sample, interactions)
        absent |= _absent(sample, tools, absent)
        if sample.agent_name not in AGENTS:
            raise ConfigError(
                f"{sample.where}: agent_name is {sample.agent_name!r}, a loop of its own that is "
                f"not supported yet; expected one of {AGENTS[2:]}: change or drop the column"
            )
        if media := sample.media:
            raise ConfigError(
                f"{sample.where} has {media[0].kind}s in its prompt ({len(media)} in all); the "
                f"policy has no eyes yet: use rows of text alone, or put the content into words"
            )
    if absent:
        logger.info("rows hold tools_kwargs for tools that this run has not: %s", sorted(absent))


def offered_tools(sample: Sample, tools: Mapping[str, BaseTool]) -> Mapping[str, BaseTool]:
    """Return the tools that a sample is offered: those of `tool_selection`, or all.

    Raises:
        ConfigError: it names a tool that is not there.
    """
    if sample.tool_selection is None:
        return tools
    if not tools.keys() >= set(sample.tool_selection):
        _unknown(sample, "tool_selection", sample.tool_selection, tools)
    return {name: tools[name] for name in sample.tool_selection}


def choose_interaction(
    sample: Sample, interactions: Mapping[str, BaseInteraction]
) -> BaseInteraction | None:
    """Return the interaction that a sample names, or the only one there is.

    Raises:
        ConfigError: the name is unknown, or none is named where there are several.
    """
    name = sample.interaction_kwargs.get("name")
    if name is None and len(interactions) <= 1:
        return next(iter(interactions.values()), None)
    if not isinstance(name, str) or name not in interactions:
        raise ConfigError(
            f"{sample.where}: interaction_kwargs.name is {name!r}; expected one of "
            f"{sorted(interactions)}: correct the row, or add the interaction to its YAML"
        )
    return interactions[name]


def _absent(sample: Sample, tools: Mapping[str, BaseTool], seen: set[str]) -> set[str]:
    """Return the tools, unseen yet, that a row has arguments for and the run has not (verl's may).

    Raises:
        ConfigError: one of the names is a tool's but for a letter or two.
    """
    absent = sample.tools_kwargs.keys() - tools.keys() - seen
    if any(get_close_matches(name, tools, 1, 0.7) for name in absent):
        _unknown(sample, "tools_kwargs", sample.tools_kwargs, tools)
    return absent


def _unknown(
    sample: Sample, column: str, names: Iterable[str], tools: Mapping[str, BaseTool]
) -> None:
    raise ConfigError(
        f"{sample.where}: {column} names {[name for name in names if name not in tools]}; the "
        f"tools are {sorted(tools)}: correct the row, or add the tool to the tools YAML"
    )
