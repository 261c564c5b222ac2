"""From a sample to a trajectory: rendering, engines, tools, episodes and groups."""
