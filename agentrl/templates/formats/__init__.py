"""Tool-call formats: how a policy's text is split into content and calls, one file per format."""
