"""Engines, one per file. Import the leaf you need; torch is loaded only by those that use it.

`scripted` plays completions written in advance (for tests), `transformers` runs the trainer's
own module in this process.
"""
