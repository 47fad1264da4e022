"""Losses of predicted distributions or of their parameters."""
