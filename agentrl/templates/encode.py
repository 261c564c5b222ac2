"""Tokenises rendered dialogues so that only the template writes control tokens.

Whoever encodes rendered text as it is lets any page, program or user write `<|im_end|>` and so end
their own turn. Here a control token's text inside content is *marked* before the template sees it:
a random word is put into its middle, which survives trimming, splitting and JSON. After rendering,
what is unmarked is the template's own. Text without a mark, nearly all, is encoded by the
tokenizer as it stands. Text with marks is encoded by a copy of the tokenizer whose control tokens
have other texts, known to nobody, in one call: so the words between get the tokens they always get.
"""

import json
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from agentrl.errors import RenderError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_LOOKS_LIKE_CONTROL = re.compile(r"<[|｜].*[|｜]>|</?(think|tool_call|tool_response)>")
_BRACKETS = frozenset("<[{(")


class ContentEncoder:
    """Marks control tokens in content, and turns marked text into token ids.

    Args:
        tokenizer: of transformers.
        template: the chat template's source: an added token that it names is a control token,
            special or not.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: str) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        self.control: dict[str, int] = {
            token.content: int(i) for i, token in added if _is_control(token, template)
        }
        self._pattern = re.compile(_alternatives(self.control) or "(?!)")
        word = secrets.token_hex(8)
        self._mark, self._open, self._close = f"Zq{word}qZ", f"\ufdd0{word}", f"{word}\ufdd1"

    def find(self, text: str, start: int = 0) -> "re.Match[str] | None":
        """Return the first unmarked control token at or behind `start`."""
        return self._pattern.search(text, start)

    def find_all(self, text: str) -> "list[re.Match[str]]":
        """Return every unmarked control token of a text."""
        return list(self._pattern.finditer(text))

    def mark(self, value: Any, allowed: Collection[str] = ()) -> Any:
        """Return a JSON value whose texts cannot become control tokens other than `allowed`."""
        if isinstance(value, str):
            return self._mark_text(value, allowed)
        if isinstance(value, dict):
            return {self.mark(k, allowed): self.mark(v, allowed) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.mark(item, allowed) for item in value]
        return value

    def plain(self, text: str) -> str:
        """Return text without its marks."""
        return text.replace(self._mark, "")

    def encode(self, text: str) -> np.ndarray:
        """Return the int32 ids of rendered text; marked control tokens are text.

        Raises:
            RenderError: the text holds what no tokenizer takes.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RenderError(
                f"the text at {text[max(0, error.start - 20) : error.start]!r} goes on with a lone "
                f"surrogate, which no tokenizer takes; clean the data"
            ) from error
        if self._mark not in text:
            return np.array(self._tokenizer.encode(text, add_special_tokens=False), dtype=np.int32)
        tokenizer, table = self._renamed
        shown = self._pattern.sub(lambda match: f"{self._open}{match[0]}{self._close}", text)
        ids = tokenizer.encode(self.plain(shown), add_special_tokens=False).ids
        return table[np.array(ids, dtype=np.int64)]

    def decode(self, token_ids: Sequence[int] | np.ndarray) -> str:
        """Return the text of any tokens, special ones included."""
        # An array, because transformers looks at every element of a list.
        ids = np.asarray(token_ids, dtype=np.int64)
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def _mark_text(self, text: str, allowed: Collection[str]) -> str:
        if not self._pattern.search(text):
            return text

        def put(match: re.Match[str]) -> str:
            token = match[0]
            return token if token in allowed else f"{token[0]}{self._mark}{token[1:]}"

        marked = text
        while (again := self._pattern.sub(put, marked)) != marked:
            marked = again
        return marked

    @cached_property
    def _renamed(self) -> "tuple[Tokenizer, np.ndarray]":
        """The tokenizer with other texts for control tokens, and the real id of each of its ids."""
        from tokenizers import Tokenizer

        tree = json.loads(self._tokenizer.backend_tokenizer.to_str())
        tree.update(post_processor=None, truncation=None, padding=None)
        new_texts: dict[str, int] = {}
        for token in tree["added_tokens"]:
            if token["content"] in self.control:
                token["content"] = f"{self._open}{token['content']}{self._close}"
            new_texts[token["content"]] = token["id"]
        renamed = Tokenizer.from_str(json.dumps(tree))
        table = np.arange(renamed.get_vocab_size(with_added_tokens=True) + 1, dtype=np.int32)
        for text, real in new_texts.items():
            table[renamed.token_to_id(text)] = real
        return renamed, table


def _is_control(token: Any, template: str) -> bool:
    """Whether a token has a meaning of its own; Gemma's runs of spaces, say, have none."""
    text = str(token.content)
    if len(text) < 2 or text.isspace():
        return False
    named = not _BRACKETS.isdisjoint(text) and text in template
    return bool(token.special) or named or _LOOKS_LIKE_CONTROL.fullmatch(text) is not None


def _alternatives(texts: Iterable[str]) -> str:
    """Return a pattern of the longest of `texts` at a place, as fast for 6,000 as for six."""
    root: dict[str, Any] = {}
    for text in texts:
        node = root
        for character in text:
            node = node.setdefault(character, {})
        node[""] = {}
    return _pattern_of(root)


def _pattern_of(node: dict[str, Any]) -> str:
    branches = [re.escape(key) + _pattern_of(child) for key, child in node.items() if key]
    if not branches:
        return ""
    body = branches[0] if len(branches) == 1 and "" not in node else f"(?:{'|'.join(branches)})"
    return f"{body}?" if "" in node else body
