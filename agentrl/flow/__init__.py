"""The training loop as a graph of typed functions; knows nothing of models."""
