"""Losses of embeddings: similar examples near each other, others far apart."""
