"""The policy of `vs_trl.py` before its warm start, and the teacher it imitates.

A Llama of three million parameters over a tokenizer that merges little, so that dialogues are a
few hundred tokens long, as those of real policies are. The problems are the calculator task's.
The teacher quotes a sentence, then makes one call per operator, so that dialogues differ in
length and in calls; its last operator is often wrong, which leaves GRPO something to learn.
"""

import random
from collections.abc import Iterator
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vs_trl_problem import TOOL, run_program

from agentrl.contracts.task import Demonstration
from agentrl.plugins.reference import load_plugin

VOCABULARY = 480
HIDDEN, LAYERS, HEADS = 256, 4, 8
POSITIONS = 512
NUM_PROBLEMS = 4000
WRONG_SHARE = 0.5

_CALCULATOR = "tasks/calculator"
_generate: Any = load_plugin(f"{_CALCULATOR}/problems.py:generate")
_expression: Any = load_plugin(f"{_CALCULATOR}/problems.py:expression")
_confused_with: Any = load_plugin(f"{_CALCULATOR}/problems.py:CONFUSED_WITH")
_split: str = load_plugin(f"{_CALCULATOR}/policy.py:SPLIT")
_special: list[str] = load_plugin(f"{_CALCULATOR}/policy.py:SPECIAL")
_tags: list[str] = load_plugin(f"{_CALCULATOR}/policy.py:TAGS")
_chat_template: str = load_plugin(f"{_CALCULATOR}/policy.py:CHAT_TEMPLATE")


def build(seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Return the untrained policy and its tokenizer."""
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN * 3,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config), tokenizer


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE in which every number below 100 is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(_tags),
        special_tokens=_special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    questions = [problem.question for problem in problems()[:600]]
    numbers = [str(number) for number in range(100)] * len(questions)
    tokenizer.train_from_iterator([*numbers, *questions], trainer)
    tokenizer.add_tokens(_tags)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=POSITIONS,
    )
    fast.chat_template = _chat_template
    return fast


def problems() -> list[Any]:
    """Generate the problems; the same ones every time."""
    return list(_generate(held_out=False, count=NUM_PROBLEMS, seed=0, two_step_share=0.5))


def demonstrations() -> Iterator[Demonstration]:
    """Yield the careless teacher's dialogues."""
    rng = random.Random("teacher")
    for problem in problems():
        yield _demonstrate(problem, wrong=rng.random() < WRONG_SHARE)


def _demonstrate(problem: Any, *, wrong: bool) -> Demonstration:
    operators = list(problem.operators)
    if wrong:
        operators[-1] = _confused_with[operators[-1]]
    # The sentences that say what to do stand right before the question.
    sentences = problem.question.split(". ")[-len(operators) - 1 :]
    messages: list[Any] = [{"role": "user", "content": problem.question}]
    value = problem.numbers[0]
    for index, operator in enumerate(operators):
        code = f"print({_expression((value, problem.numbers[index + 1]), (operator,))})"
        function = {"name": TOOL, "arguments": {"code": code}}
        call = {"id": f"call_{index}", "type": "function", "function": function}
        printed = run_program(code)
        messages += [
            {"role": "assistant", "content": sentences[index] + ".\n", "tool_calls": [call]},
            {"role": "tool", "name": TOOL, "tool_call_id": call["id"], "content": printed},
        ]
        value = int(printed)
    messages.append({"role": "assistant", "content": str(value)})
    return Demonstration(messages=messages, tools=(TOOL,))
