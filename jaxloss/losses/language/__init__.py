"""Losses of sequences, and preference losses of language models."""
