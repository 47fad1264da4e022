"""Losses of class labels: binary, multi-class or ordinal."""
