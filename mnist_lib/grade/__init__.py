"""What a course claims and what was measured: logs and notebooks, verdict, shipped records."""
