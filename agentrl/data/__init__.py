"""Rows, their order, and the task that reads them."""
