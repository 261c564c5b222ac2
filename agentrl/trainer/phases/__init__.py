"""The phases of a run; each takes the session from where its progress stands to its end."""
