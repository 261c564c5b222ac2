"""Chat templates of public packages, and tokenizers that have the special tokens they name."""

import ast
import importlib.util
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from agentrl.rollout.shipped import SHIPPED, shipped_template

_TOKENS = re.compile(
    r"<[|｜][^<>\s'\"{}]+?[|｜]?>|<｜[^<>'\"{}]+?｜>|<[a-z_]+\|>|<\|[A-Z_]+_TOKEN\|>|</?s>|<sep>"
    r"|</?(?:bos|eos|assistant|user|system)>|<(?:start|end)_of_(?:turn|utterance)>"
    r"|<(?:beginning|end)_of_sentence>|<SPECIAL_\d+>|\[/?[A-Z][A-Z_]+\]|\]~b\]|\[e~\["
    r"|</?(?:seed|minimax):[a-z_]+>|</?think>|</?tool_(?:call|response)>|</?arg_(?:key|value)>"
)
_ORDINARY = re.compile(r"</?(?:think|tool_call|tool_response|arg_key|arg_value)>")
_ENDS = (
    *(
        "<|im_end|>",
        "<|eot_id|>",
        "<end_of_turn>",
        "<turn|>",
        "<｜end▁of▁sentence｜>",
        "<|return|>",
    ),
    *("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "<|END_OF_TURN_TOKEN|>"),
)
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BUNDLED = (
    "smolvlm/processing_smolvlm.py",
    "llama4/processing_llama4.py",
    "qwen2_audio/processing_qwen2_audio.py",
)


def templates_in(folder: Path) -> dict[str, str]:
    """Return the text of each template below a folder, by its name."""
    return {path.stem: path.read_text() for path in sorted(folder.rglob("*.jinja"))}


def installed_templates() -> dict[str, str]:
    """Return what the installed packages bundle, by `package/name`."""
    found = {f"agentrl/{name}": shipped_template(name) for name in SHIPPED}
    if trl := trl_folder():
        found |= {f"trl/{name}": text for name, text in templates_in(trl).items()}
    if vllm := _package("vllm"):
        bundled = templates_in(vllm / "transformers_utils" / "chat_templates")
        found |= {f"vllm/{name}": text for name, text in bundled.items()}
    transformers = _package("transformers")
    assert transformers is not None
    for path in _BUNDLED:
        text = _longest_string(transformers / "models" / path)
        found[f"transformers/{path.partition('/')[0]}"] = text
    return found


def trl_folder() -> Path | None:
    """Return where TRL's templates are, if they are here."""
    if named := os.environ.get("AGENTRL_TRL_TEMPLATES"):
        return Path(named)
    package = _package("trl")
    return package / "chat_templates" if package else None


@cache
def tokenizer_for(template: str) -> Any:
    """Return a byte-level tokenizer with the special tokens that a template names."""
    raw = Tokenizer.from_str(_base())
    tokens = sorted(set(_TOKENS.findall(template)))
    ordinary = [token for token in tokens if _ORDINARY.fullmatch(token)]
    special = [token for token in tokens if token not in ordinary]
    end = next((token for token in _ENDS if token in special), "</s>")
    raw.add_special_tokens(list(dict.fromkeys([*special, end, "<s>"])))
    raw.add_tokens(ordinary)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=end, bos_token="<s>", pad_token=end, unk_token=end
    )
    tokenizer.chat_template = template
    return tokenizer


@cache
def _base() -> str:
    """A tokenizer whose merges join what real ones join, line breaks among it."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    root = Path(__file__).parents[2]
    corpus = [path.read_text() for path in sorted((root / "agentrl" / "rollout").rglob("*.py"))]
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(corpus, trainer)
    return str(raw.to_str())


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _longest_string(path: Path) -> str:
    nodes = ast.walk(ast.parse(path.read_text()))
    strings = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return max((text for text in strings if "{%" in text), key=len)
