"""Losses of sequences, and of what a language model should prefer."""
