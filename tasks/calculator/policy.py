"""The policy of the calculator task, built from scratch when a run starts.

A Llama of 0.6 million parameters and a byte-level BPE tokenizer trained on the task's own
problems, in which every number below 100 is one token. The chat template is ChatML with Hermes
tool calls; it lists the tools by name and parameters only, to keep the prompt short. One seed
always gives the same weights.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agentrl.plugins.reference import load_plugin

VOCABULARY = 640
MAX_LENGTH = 256
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAGS = ["<tool_call>", "</tool_call>"]
SPLIT = r"[0-9]{1,2}|[.?]| ?[A-Za-z]+|\n| ?[^\s0-9A-Za-z.?][^\s0-9.?]*"
CHAT_TEMPLATE = """\
{%- if tools %}<|im_start|>system
{% for tool in tools %}
{{- tool.function.name }}({{ tool.function.parameters.properties | join(', ') }})
{%- endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def build(seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Return the untrained policy and its tokenizer."""
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=32,  # the least that vLLM has kernels for
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.05,  # learns to copy numbers in half the steps that 0.02 takes
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config), tokenizer


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer on training problems; the same one every time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TAGS),
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_tokens(TAGS)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=MAX_LENGTH,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _corpus() -> list[str]:
    """Return the text that decides the merges: numbers first, so that all are learnt."""
    generate: Any = load_plugin("problems.py:generate", base=Path(__file__).parent)
    problems = list(generate(held_out=False, count=600, seed=0, two_step_share=0.5))
    call = '{{"name": "code_interpreter", "arguments": {{"code": "{}"}}}}\n'
    numbers = [str(number) for number in range(100)] * len(problems)
    frame = ["system\ncode_interpreter(code)\nuser\nassistant\ntool\n"] * len(problems)
    return [*numbers, *frame, *(p.question + "\n" + call.format(p.program) for p in problems)]
