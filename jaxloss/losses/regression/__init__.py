"""Losses of real-valued predictions and targets."""
