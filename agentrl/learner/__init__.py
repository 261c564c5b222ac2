"""From trajectories to gradients: samples, batches, models, scores, optimizer steps."""
