"""Synthetic pictures, and what they answer to each task."""
