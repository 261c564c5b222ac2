"""The part that runs inside vLLM's worker process: taking the trainer's weights.

vLLM calls it by name (`worker_extension_cls`), in our own engine and in a `vllm serve` alike.
Weights come in checkpoint format, some tensors at a time, through vLLM's layer-wise reloading,
which processes a layer as soon as it is complete. On a CPU that misses an output head tied to
the embedding: its packed copy keeps the old values, so `finish_weights` packs it anew.
"""

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

LOG_ENV = "AGENTRL_VLLM_LOG"
"""Where the engine's process writes what it would print; unset means to the terminal."""

if LOG_ENV in os.environ:
    # Libraries print too, so the logging configuration alone would not keep the display clean.
    _log = os.open(os.environ[LOG_ENV], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for _stream in (1, 2):
        os.dup2(_log, _stream)
    os.close(_log)

TensorPlace = tuple[str, str, list[int], int]
"""Name, dtype (as torch names it), shape, and offset in bytes."""


class WeightWorker:
    """Mixed into vLLM's worker; every method is called in all workers at once."""

    model_runner: Any
    vllm_config: Any

    def start_weights(self) -> None:
        """Make ready for a full set of weights."""
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        self._loaded: set[str] = set()
        with set_current_vllm_config(self.vllm_config):
            initialize_layerwise_reload(self.model_runner.get_model())

    def load_weights_from_memory(self, path: str, places: list[TensorPlace]) -> None:
        """Load the tensors that lie in a shared memory file."""
        with open(path, "rb") as file, contextlib.closing(_mapped(file.fileno())) as memory:
            self.load_weights_from((place[0], _tensor(memory, place)) for place in places)

    def load_weights_from_folder(self, folder: str) -> None:
        """Load every tensor of a folder's safetensors files: start, load, finish."""
        from safetensors import safe_open

        self.start_weights()
        for path in sorted(Path(folder).glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                self.load_weights_from((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
        self.finish_weights()

    def load_weights_from(self, weights: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Load some named tensors; they are copied before this returns."""
        from vllm.config import set_current_vllm_config

        with set_current_vllm_config(self.vllm_config), torch.no_grad():
            # The layer-wise loader may keep a tensor until its layer is complete.
            kept = ((name, tensor.clone()) for name, tensor in weights)
            self._loaded |= set(self.model_runner.get_model().load_weights(kept) or ())

    def finish_weights(self) -> None:
        """Put the loaded weights to use.

        Raises:
            RuntimeError: a parameter of the model was not sent.
        """
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        model = self.model_runner.get_model()
        with set_current_vllm_config(self.vllm_config), torch.no_grad():
            finalize_layerwise_reload(model, self.vllm_config.model_config)
            self.repack_shared_weights(model)
        missing = sorted({name for name, _ in model.named_parameters()} - self._loaded)
        if missing:
            raise RuntimeError(
                f"weight update: {len(missing)} parameters were not sent, such as {missing[0]!r}"
            )

    def repack_shared_weights(self, model: torch.nn.Module) -> None:
        """Pack again, on a CPU, every layer whose weight is also another layer's."""
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if hasattr(module, "cpu_linear") and weight is not None and weight.numel():
                from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

                dispatch_cpu_unquantized_gemm(module, remove_weight=False)


def _mapped(descriptor: int) -> mmap.mmap:
    # Private, because torch wants a writable buffer; pages never written are never copied.
    return mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE)


def _tensor(memory: mmap.mmap, place: TensorPlace) -> torch.Tensor:
    _, dtype_name, shape, offset = place
    dtype = getattr(torch, dtype_name)
    count = torch.Size(shape).numel()
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=offset).view(shape)
