"""Losses of a class: yes or no, one of several, or one in an order."""
