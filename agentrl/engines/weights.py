"""Weights on their way to an engine: as a module, loaded for it alone, copied into its own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import torch

from agentrl.contracts.engine import PublishedWeights
from agentrl.errors import EngineError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleWeights:
    """The parameters of a module as `PublishedWeights`. Tied parameters come once."""

    module: torch.nn.Module
    version: int = 0

    def named_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every parameter once, detached, sharing the module's storage."""
        for name, parameter in self.module.named_parameters():
            yield name, parameter.detach()

    def tied_names(self) -> dict[str, str]:
        """Return the other names of tied parameters, each with the one that is yielded."""
        first = {id(parameter): name for name, parameter in self.module.named_parameters()}
        every = self.module.named_parameters(remove_duplicate=False)
        pairs = ((name, first[id(parameter)]) for name, parameter in every)
        return {name: yielded for name, yielded in pairs if name != yielded}


class LiveWeights:
    """Publishes the weights of a module in training."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.version = 0
        self._module = module
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[PublishedWeights]:
        """Read what was published last; a writer waits meanwhile."""
        async with self._lock:
            yield ModuleWeights(module=self._module, version=self.version)

    @asynccontextmanager
    async def writing(self, version: int) -> AsyncIterator[None]:
        """Change the module; leaving without an error publishes it as `version`."""
        async with self._lock:
            yield
            self.version = version


class LoadedWeights:
    """Publishes weights that are never trained: held until they are read, then let go.

    Args:
        module: the weights, loaded to describe the model.
        load: loads them again, for an engine that starts again.
    """

    version = 0

    def __init__(self, module: torch.nn.Module, load: Callable[[], torch.nn.Module]) -> None:
        self._module: torch.nn.Module | None = module
        self._load = load
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[PublishedWeights]:
        """Read the weights; nothing here refers to them afterwards."""
        async with self._lock:
            module, self._module = self._module, None
            if module is None:
                module = await asyncio.to_thread(self._load)
            yield ModuleWeights(module=module)


@torch.no_grad()
def copy_weights(source: PublishedWeights, module: torch.nn.Module) -> int:
    """Copy named tensors into a module, one at a time. A tensor that it shares is not copied.

    Returns:
        The number of tensors copied: 0 when `source` is the module itself.

    Raises:
        EngineError: a name is unknown or missing, or a shape differs. What came before the
            offending tensor has been written.
    """
    own = dict(module.named_parameters(remove_duplicate=False))
    missing = {id(parameter): name for name, parameter in module.named_parameters()}
    num_copied = 0
    for name, tensor in source.named_tensors():
        target = own.get(name)
        if target is None:
            raise EngineError(
                f"weight update: {name!r} is not a parameter of the engine's "
                f"{type(module).__name__}, which has {len(missing)} still to be set, such as "
                f"{next(iter(missing.values()), 'none')!r}; "
                "send the weights of the same architecture, without wrappers' prefixes"
            )
        if target.shape != tensor.shape:
            raise EngineError(
                f"weight update: {name!r} should have shape {tuple(target.shape)}, "
                f"got {tuple(tensor.shape)}; send the weights of the same configuration"
            )
        missing.pop(id(target), None)
        if target.data_ptr() != tensor.data_ptr() or target.device != tensor.device:
            target.copy_(tensor)
            num_copied += 1
    if missing:
        names = sorted(missing.values())
        raise EngineError(
            f"weight update: {len(names)} parameters were not sent: {', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}; send every parameter once"
        )
    return num_copied
