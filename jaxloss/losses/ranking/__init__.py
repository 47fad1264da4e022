"""Losses of an order of items."""
