"""A run on disk and in time: folder, checkpoints, progress, reports. No language model here."""
