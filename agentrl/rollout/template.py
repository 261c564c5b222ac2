"""One chat template of one tokenizer: from messages to text, and nothing else.

The date that a template shows is the one of its construction, so that no prompt changes at
midnight. Whatever a template does wrong becomes a `RenderError`, which ends one episode.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from jinja2.exceptions import TemplateError as JinjaError

from agentrl.contracts.message import Message
from agentrl.errors import ConfigError, RenderError
from agentrl.rollout.schemas import ToolDict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FAULTS = (JinjaError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""What Jinja and the Python below it raise for messages that a template was not written for."""


class ChatTemplate:
    """Renders with the tokenizer's own template, or with the Jinja text that replaces it.

    Of several named templates, `tool_use` is taken where tools are offered, else `default`.

    Raises:
        ConfigError: there is no chat template.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", replacement: str | None) -> None:
        self.name = str(tokenizer.name_or_path or type(tokenizer).__name__)
        own = replacement or tokenizer.chat_template
        if not own:
            raise ConfigError(
                f"model {self.name!r} has no chat template, which multi-turn rollouts need; use "
                f"an instruction-tuned model, or name a Jinja file as `model.chat_template`"
            )
        named = own if isinstance(own, dict) else {"default": own}
        self._default = str(named.get("default") or next(iter(named.values())))
        self.source = str(named.get("tool_use") or self._default)
        both = dict.fromkeys((self._default, self.source))
        self.digest = "sha256:" + hashlib.sha256("\n".join(both).encode()).hexdigest()
        self.eos_token = str(tokenizer.eos_token or "")
        self._tokenizer = tokenizer
        self._began = datetime.now()

    def render(
        self, messages: Sequence[Message], tools: Sequence[ToolDict], *, generate: bool
    ) -> str:
        """Return the template's text, ending in the generation prompt if `generate`.

        Raises:
            RenderError: the template refuses the messages.
        """
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                chat_template=self.source if tools else self._default,
                add_generation_prompt=generate,
                tokenize=False,
                strftime_now=self._began.strftime,
            )
        except _FAULTS as error:
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise RenderError(
                f"chat template of {self.name!r} refuses a dialogue of {roles}: "
                f"{type(error).__name__}: {error}; change the messages, or name a template that "
                f"takes them as `model.chat_template`"
            ) from error
        return str(text)
