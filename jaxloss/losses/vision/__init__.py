"""Losses of images and segmentation masks."""
