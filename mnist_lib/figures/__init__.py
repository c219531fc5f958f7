"""Plots of seeds, pictures of digits, the layer table, and measurements of a trained net."""
