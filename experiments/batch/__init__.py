"""Batch files: compare orders, write the best one, run it, put results back in order."""
