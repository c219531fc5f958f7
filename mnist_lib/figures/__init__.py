"""Plots of seeds, pictures of digits, and the layer table."""
