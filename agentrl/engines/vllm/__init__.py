"""vLLM in a process of its own, with weights that stay in step with the trainer's."""
