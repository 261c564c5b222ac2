"""Answer checkers: plain functions of text that tools, interactions and tasks share."""
