import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from agentrl.cli.main import app

TEMPLATE = (
    "{% if tools %}<s>system\n{{ tools | tojson }}</s>\n{% endif %}"
    "{% for m in messages %}<s>{{ m.role }}\n{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
BUILDER = f"""
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

def build(seed):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {{token: i for i, token in enumerate(["<s>", "</s>", *alphabet])}}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<s>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", pad_token="<s>")
    tokenizer.chat_template = {TEMPLATE!r}
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512,
        bos_token_id=0, eos_token_id=1,
    )
    return LlamaForCausalLM(config), tokenizer
"""


@pytest.fixture
def agentrl() -> Callable[..., Result]:
    """Run the program in this process."""

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny policy, data and a configuration that trains in a second."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(BUILDER)
    rows = [{"prompt": f"say {i}", "answer": str(i)} for i in range(4)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "train.jsonl").write_text(lines)
    (tmp_path / "test.jsonl").write_text(lines)
    write_config(tmp_path)
    return tmp_path


def write_config(folder: Path, **changes: object) -> None:
    config: dict[str, object] = {
        "name": "tiny",
        "model": {"builder": "tiny.py:build"},
        "task": {"train": "train.jsonl", "test": "test.jsonl"},
        "rollout": {"group_size": 2, "max_response_tokens": 4},
        "train": {"steps": 1, "prompts_per_step": 1},
        "eval": {"samples": 2},
        **changes,
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def configure(project: Path) -> Callable[..., None]:
    """Write the project's configuration with some sections replaced."""
    return lambda **changes: write_config(project, **changes)
