"""Models: a causal language model and its tokenizer, loaded or built, and its frozen reference.

A run's reference (of a KL penalty) is the policy as it was before the first step. It is saved with
the run, because a resumed run's policy is no longer it.
"""

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agentrl.config.run import ModelConfig
from agentrl.errors import ConfigError, NotReadyError, loading
from agentrl.learner.attention import packs
from agentrl.paths import resolve_path
from agentrl.plugins.reference import load_plugin
from agentrl.templates.shipped import SHIPPED, shipped_template

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model in training, on one device. `packs`: see `agentrl.learner.attention.packs`."""

    model: Any
    tokenizer: Any
    device: torch.device
    packs: bool = False

    def named_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every parameter once, detached."""
        for name, parameter in self.model.named_parameters():
            yield name, parameter.detach()

    @property
    def max_tokens(self) -> int | None:
        """The model's context limit, if its configuration names one."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else None

    def frozen_copy(self) -> Any:
        """Return a copy of the model that never changes."""
        return _frozen(copy.deepcopy(self.model))

    def save(self, folder: Path) -> None:
        """Write model and tokenizer in the Hugging Face layout."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def load_model(
    config: ModelConfig, *, base: Path | None, seed: int, weights: Path | None = None
) -> Model:
    """Load or build the policy; with `weights`, from a checkpoint's folder instead.

    Raises:
        ConfigError: the folder, hub name or builder does not give a model.
        NotReadyError: the device is not there.
    """
    from transformers.utils import logging as transformers_logging

    # Bars of its own would tear the run's display.
    transformers_logging.disable_progress_bar()
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    if weights is None and config.builder is not None:
        model, tokenizer = _build(config.builder, base, seed)
    else:
        model, tokenizer = _from_pretrained(weights or _source(config, base), config, dtype)
    model = model.to(device=device, dtype=dtype)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Model(model=model, tokenizer=tokenizer, device=device, packs=packs(model))


def load_tokenizer(config: ModelConfig, *, base: Path | None, seed: int) -> Any:
    """Load the tokenizer alone (a builder has to build its model too).

    Raises:
        ConfigError: as `load_model`.
    """
    from transformers import AutoTokenizer

    if config.builder is not None:
        return _build(config.builder, base, seed)[1]
    source = _source(config, base)
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ConfigError(_unloadable(source, error)) from error


def generation_stop_ids(config: ModelConfig, *, base: Path | None) -> tuple[int, ...]:
    """Return the tokens at which the model's `generation_config.json` ends a turn, if it has one.

    The weights are not loaded.
    """
    from transformers import GenerationConfig

    if config.builder is not None:
        return ()
    try:
        ids = GenerationConfig.from_pretrained(_source(config, base)).eos_token_id
    except (OSError, ValueError):
        return ()
    return (ids,) if isinstance(ids, int) else tuple(ids or ())


def open_reference(folder: Path, model: Model, step: int) -> Any:
    """Return the reference: at step 0 a copy, which is saved in `folder`; later the saved one.

    Raises:
        ConfigError: a later step finds none saved.
    """
    if step == 0:
        model.model.save_pretrained(folder)
        return model.frozen_copy()
    if not folder.is_dir():
        raise ConfigError(
            f"run {folder.parent} has no {folder.name}/ folder, which its KL penalty needs; start "
            f"a new run, or set algorithm.kl.coefficient=0"
        )
    policy = model.model
    reference = type(policy).from_pretrained(
        folder, dtype=policy.dtype, attn_implementation=policy.config._attn_implementation
    )
    return _frozen(reference.to(model.device))


def chat_template(config: ModelConfig, base: Path | None) -> str | None:
    """Read the template that replaces the tokenizer's, if one is named: a shipped one, or a file.

    Raises:
        ConfigError: it cannot be read.
    """
    if config.chat_template is None:
        return None
    if config.chat_template in SHIPPED:
        return shipped_template(config.chat_template)
    path = resolve_path(config.chat_template, base)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"model.chat_template {path}: {error.strerror or error}") from error


def choose_device(name: str) -> torch.device:
    """Return the device; `auto` is cuda where there is one.

    Raises:
        ConfigError: no such kind of device.
        NotReadyError: this machine has none of that kind.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"model.device {name!r}: expected auto, cpu or cuda[:N]")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise NotReadyError(f"model.device {name!r}: torch sees no CUDA device; use `cpu`")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise NotReadyError(
            f"model.device {name!r}: torch sees {torch.cuda.device_count()} CUDA devices, "
            f"numbered from 0"
        )
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype; `auto` is bfloat16 on a GPU that computes in it, else float32."""
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    if name == "bfloat16" and device.type == "cpu" and _cpu_kind() == "AVX2":
        logger.warning(
            "model.dtype=bfloat16: this CPU computes in it about 30 times slower than in float32, "
            "as it has no AVX-512; use model.dtype=float32"
        )
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _cpu_kind() -> str:
    return str(torch.backends.cpu.get_cpu_capability())


def _frozen(model: Any) -> Any:
    return model.eval().requires_grad_(False)


def _build(reference: str, base: Path | None, seed: int) -> tuple[Any, Any]:
    builder = load_plugin(reference, base=base)
    torch.manual_seed(seed)
    with loading(f"model.builder {reference!r}"):
        built = builder(seed)
    if not (isinstance(built, tuple) and len(built) == 2 and isinstance(built[0], torch.nn.Module)):
        raise ConfigError(
            f"model.builder {reference!r}: expected (model, tokenizer), got {type(built).__name__}"
        )
    return built


def _source(config: ModelConfig, base: Path | None) -> str:
    """Return a local folder if there is one, else the hub name; refuse what looks like a path."""
    assert config.path is not None
    path = resolve_path(config.path, None)
    beside = resolve_path(config.path, base)
    for candidate in (path, beside):
        if candidate.is_dir():
            return str(candidate)
    looks_local = config.path.startswith((".", "/", "~")) or config.path.count("/") > 1
    if looks_local:
        raise ConfigError(
            f"model.path {config.path!r}: no such folder; expected a Hugging Face model folder "
            f"or a hub name such as HuggingFaceTB/SmolLM2-135M-Instruct"
        )
    return config.path


def _from_pretrained(
    source: str | Path, config: ModelConfig, dtype: torch.dtype
) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Damaged files raise whatever their parser happens to trip over.
    with loading(f"model.path {str(source)!r}"):
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, attn_implementation=config.attention
            )
        except (OSError, ValueError) as error:
            raise ConfigError(_unloadable(source, error)) from error
    return model, tokenizer


def _unloadable(source: str | Path, error: Exception) -> str:
    why = " ".join(str(error).split())[:300]
    return (
        f"model.path {str(source)!r} is neither a model folder nor a hub model that can be "
        f"reached: {why}"
    )
