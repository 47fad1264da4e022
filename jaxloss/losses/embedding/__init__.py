"""Losses of embeddings: what is alike should be near."""
