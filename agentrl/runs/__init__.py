"""A run on disk and in time; it knows no language model."""
