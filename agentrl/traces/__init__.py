"""Trajectories on disk: every rollout is recorded, and can be read back exactly."""
