"""Where untrusted programs run: one pool, several kinds of walls. See `open_sandbox`."""

from agentrl.sandbox.factory import open_sandbox

__all__ = ["open_sandbox"]
