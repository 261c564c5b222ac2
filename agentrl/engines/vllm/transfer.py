"""Carrying the trainer's weights into the engine's process, some tensors at a time.

On a CPU they pass through one shared memory buffer, which holds as many tensors as fit; on a GPU
the engine reads the trainer's own memory through CUDA handles, by vLLM's weight-transfer
interface. Either way no second copy of the model exists on the device.
"""

import asyncio
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from agentrl.contracts.engine import PublishedWeights
from agentrl.engines.vllm.versions import start_transfer
from agentrl.engines.vllm.worker import TensorPlace

BUFFER_BYTES = 2**26
"""64 MiB, or the largest tensor where that is more."""
ALIGNMENT = 64
SHARED_MEMORY = Path("/dev/shm")


async def send_weights(engine: Any, source: PublishedWeights, *, device: str) -> int:
    """Send every tensor of `source` to a paused engine; returns the bytes sent.

    Raises:
        RuntimeError: the engine's process refused a tensor, or missed one.
    """
    if device == "cpu":
        return await _send_through_memory(engine, source)
    return await _send_handles(engine, source)


async def _send_through_memory(engine: Any, source: PublishedWeights) -> int:
    sent = 0
    tensors = list(source.named_tensors())
    largest = max(_size(tensor) for _, tensor in tensors)
    await engine.collective_rpc("start_weights")
    with _shared_buffer(max(BUFFER_BYTES, largest)) as (path, buffer):
        for batch in _batches(tensors, len(buffer)):
            places = await asyncio.to_thread(_write, buffer, batch)
            await engine.collective_rpc("load_weights_from_memory", args=(path, places))
            sent += sum(_size(tensor) for _, tensor in batch)
    await engine.collective_rpc("finish_weights")
    return sent


async def _send_handles(engine: Any, source: PublishedWeights) -> int:
    from torch.multiprocessing.reductions import reduce_tensor
    from vllm.distributed.weight_transfer.base import (
        WeightTransferInitRequest,
        WeightTransferUpdateRequest,
    )

    if not getattr(engine, "_agentrl_transfer_ready", False):
        await engine.init_weight_transfer_engine(WeightTransferInitRequest(init_info={}))
        engine._agentrl_transfer_ready = True
    tensors = [(name, tensor.contiguous()) for name, tensor in source.named_tensors()]
    # torch leaves these two without types.
    reduce: Any = reduce_tensor
    collect: Any = torch.cuda.ipc_collect
    uuid = str(torch.cuda.get_device_properties(tensors[0][1].device).uuid)
    torch.cuda.synchronize()
    await start_transfer(engine)
    info = {
        "names": [name for name, _ in tensors],
        "dtype_names": [_dtype_name(tensor) for _, tensor in tensors],
        "shapes": [list(tensor.shape) for _, tensor in tensors],
        "ipc_handles": [{uuid: reduce(tensor)[1]} for _, tensor in tensors],
    }
    await engine.update_weights(WeightTransferUpdateRequest(update_info=info))
    await engine.finish_weight_update()
    collect()
    return sum(_size(tensor) for _, tensor in tensors)


def free_cached_memory() -> None:
    """Give back what torch keeps of the device's memory, which the engine may need."""
    torch.cuda.empty_cache()


@contextmanager
def _shared_buffer(size: int) -> Iterator[tuple[str, memoryview]]:
    folder = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    descriptor, path = tempfile.mkstemp(prefix="agentrl-weights-", dir=folder)
    try:
        os.ftruncate(descriptor, size)
        memory = mmap.mmap(descriptor, size)
        with memory, memoryview(memory) as view:
            yield path, view
    finally:
        os.close(descriptor)
        os.unlink(path)


def _batches(
    tensors: list[tuple[str, torch.Tensor]], size: int
) -> Iterator[list[tuple[str, torch.Tensor]]]:
    batch: list[tuple[str, torch.Tensor]] = []
    filled = 0
    for name, tensor in tensors:
        if batch and filled + _size(tensor) > size:
            yield batch
            batch, filled = [], 0
        batch.append((name, tensor))
        filled += -(-_size(tensor) // ALIGNMENT) * ALIGNMENT
    if batch:
        yield batch


def _write(buffer: memoryview, batch: list[tuple[str, torch.Tensor]]) -> list[TensorPlace]:
    places: list[TensorPlace] = []
    offset = 0
    for name, tensor in batch:
        room = torch.frombuffer(buffer, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
        room.view(tensor.shape).copy_(tensor)
        del room  # the buffer cannot be unmapped while anything refers to it
        places.append((name, _dtype_name(tensor), list(tensor.shape), offset))
        offset += -(-_size(tensor) // ALIGNMENT) * ALIGNMENT
    return places


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
