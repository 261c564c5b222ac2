"""Chat messages: plain dictionaries in the OpenAI form, as chat templates take them.

`role` is `system | user | assistant | tool`; an assistant message may carry `tool_calls`, each
`{"id", "type": "function", "function": {"name", "arguments": {...}}}` with *parsed* arguments,
which is what Hugging Face templates render. A tool message carries `tool_call_id` and `name`.
"""

from typing import Any

Message = dict[str, Any]
