"""Losses of a real number."""
