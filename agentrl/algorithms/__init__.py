"""Algorithms: from rewards to advantages, from log-probabilities to a loss. One per file."""
