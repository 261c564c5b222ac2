"""Attention within the segments of a packed row, for models that let their attention be chosen.

transformers' models look their attention function up by name. `attending` names ours while the
learner works: a varlen kernel on CUDA in 16 bit, else one causal SDPA per segment; never a mask of
T x T. `flash_attention_2` takes the segments itself. What a model asks of its attention beyond
that (soft caps, sinks, other masks) is refused, not ignored, and `packs` compares packed segments
with the same ones alone before the first step: a model that fails gets padded rows.

Shapes: R rows, H heads, T tokens, D channels a head; V tokens of the vocabulary.
"""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from agentrl.engines.score import evaluating
from agentrl.errors import ConfigError, loading

logger = logging.getLogger(__name__)

NAME = "agentrl_segments"
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
KNOWN = {"scaling", "sliding_window", "is_causal", "position_ids", "use_cache", "segment_lengths"}
KNOWN |= {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}
"""What a model may ask of its attention; anything else that is set is refused."""
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5}
COARSE_TOLERANCE = 3e-2


def segment_arguments(lengths: tuple[int, ...], model: Any) -> dict[str, Any]:
    """Return what a model's forward passes on to its attention about the segments of one row."""
    ends = torch.tensor((0, *lengths)).cumsum(0).to(model.device, torch.int32)
    arguments: dict[str, Any] = {"segment_lengths": lengths} if is_attending(model) else {}
    for side in "qk":
        arguments |= {f"cu_seq_lens_{side}": ends, f"max_length_{side}": max(lengths)}
    return arguments


def is_attending(model: Any) -> bool:
    """Whether the model attends by `segment_attention` at the moment."""
    return bool(model.config._attn_implementation == NAME)


@contextmanager
def attending(model: Any, *, packed: bool) -> Iterator[None]:
    """Let the model attend within segments, in forward and backward passes."""
    if not packed or model.config._attn_implementation != "sdpa":
        yield
        return
    AttentionInterface.register(NAME, segment_attention)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def segment_attention(
    module: torch.nn.Module,
    query_RHTD: torch.Tensor,
    key_RHTD: torch.Tensor,
    value_RHTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **asked: Any,
) -> tuple[torch.Tensor, None]:
    """Return `[R, T, H, D]`: each token attends to its segment up to itself.

    Raises:
        ValueError: the model asks for something else.
    """
    unknown = {k for k, v in asked.items() if isinstance(v, torch.Tensor) or v} - KNOWN
    if unknown or attention_mask is not None or asked.get("is_causal") is False:
        raise ValueError(f"packed attention cannot do what the model asks for: {sorted(unknown)}")
    qkv = (query_RHTD, key_RHTD, value_RHTD)
    scaling, window = asked.get("scaling"), asked.get("sliding_window")
    if query_RHTD.is_cuda and query_RHTD.element_size() == 2 and _has_varlen():
        from torch.nn.attention.varlen import varlen_attn

        ends_S, longest = asked["cu_seq_lens_q"], asked["max_length_q"]
        query_THD, key_THD, value_THD = (x[0].transpose(0, 1) for x in qkv)
        # The window counts tokens to the left beside oneself, and to the right.
        sides = {"window_size": (window - 1 if window else -1, 0), "enable_gqa": True}
        lengths = (ends_S, ends_S, longest, longest)
        attend: Any = varlen_attn  # its types miss what newer versions take
        return attend(query_THD, key_THD, value_THD, *lengths, scale=scaling, **sides)[None], None
    sizes = list(asked["segment_lengths"])
    outputs = [
        sdpa_attention_forward(module, *one, _band(one[0], window), scaling=scaling)[0]
        for one in zip(*(torch.split(x, sizes, dim=2) for x in qkv), strict=True)
    ]
    return torch.cat(outputs, dim=1), None


def packs(model: Any) -> bool:
    """Whether packed rows give what rows of their own give; says so once if they do not."""
    try:
        with loading("its attention"), evaluating(model):
            why = _refusal(model) or _difference(model)
    except ConfigError as error:
        why = str(error)
    if why is not None:
        logger.warning("rows are padded instead of packed, which is slower: %s", why)
    return why is None


def _refusal(model: Any) -> str | None:
    """Say why the model's attention cannot be replaced, by what it says of itself."""
    if not isinstance(model, PreTrainedModel):
        return f"{type(model).__name__} is no transformers model"
    layers = set(model.config.get_text_config().to_dict().get("layer_types") or ())
    if unknown := layers - KNOWN_LAYERS:
        return f"{type(model).__name__} has layers of {sorted(unknown)}"
    if model.config._attn_implementation not in ("sdpa", "flash_attention_2"):
        return f"model.attention is {model.config._attn_implementation}, not sdpa or flash"
    if not model._supports_flash_attn:
        # Such models hand over all that matters as arguments, a sliding window too.
        return f"{type(model).__name__} does not support attention without a mask"
    return None


@torch.no_grad()
def _difference(model: Any) -> str | None:
    """Say how packed segments differ from the same ones alone."""
    size = model.config.get_text_config().vocab_size
    rows = [(torch.arange(n, device=model.device) * 7919 + 1) % size for n in (7, 12)]
    alone = torch.cat([model(input_ids=row[None], use_cache=False).logits[0] for row in rows])
    positions = torch.cat([torch.arange(len(row), device=model.device) for row in rows])
    with attending(model, packed=True):
        packed = model(
            input_ids=torch.cat(rows)[None],
            position_ids=positions[None],
            use_cache=False,
            logits_to_keep=torch.arange(len(positions), device=model.device),
            **segment_arguments(tuple(map(len, rows)), model),
        ).logits[0]
    gap = (alone - packed).abs().max().item()
    allowed = TOLERANCE.get(alone.dtype, COARSE_TOLERANCE) * max(1.0, alone.abs().max().item())
    return None if gap <= allowed else f"{type(model).__name__}: packed logits differ by {gap:.1e}"


def _band(query_RHTD: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """Return the mask of a sliding window; None where the segment fits into it."""
    size = query_RHTD.shape[2]
    if not window or size <= window:
        return None
    ones_TT = torch.ones(size, size, dtype=torch.bool, device=query_RHTD.device)
    return ones_TT.tril().triu(1 - window)[None, None]


@cache
def _has_varlen() -> bool:
    """Whether torch has the kernel, with windows and grouped heads (newer than our minimum)."""
    if find_spec("torch.nn.attention.varlen") is None:
        return False
    from torch.nn.attention.varlen import varlen_attn

    return {"window_size", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters)
