"""Servers that generate: replicas of one model, kept in step with the trainer's weights."""
