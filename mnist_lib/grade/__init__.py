"""What the course claimed and what was measured: logs, verdict, and the shipped records."""
