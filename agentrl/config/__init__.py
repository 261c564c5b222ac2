"""The configuration tree: sections in pydantic, read from YAML and command-line words."""
