"""The loop: sample > rollout > score > advantage > update > sync > record."""
