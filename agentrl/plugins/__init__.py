"""Naming a plugin in YAML, finding it, and making it fit: references, registries, schemas."""
