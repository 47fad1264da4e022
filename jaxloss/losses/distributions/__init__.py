"""Losses of a distribution, or of its parameters."""
