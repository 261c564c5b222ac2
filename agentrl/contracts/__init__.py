"""The types every layer shares: tools, interactions, tasks, samples, trajectories, rewards."""
