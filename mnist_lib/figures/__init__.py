"""Pictures of digits, and the layer table."""
