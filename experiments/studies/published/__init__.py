"""Predictions beside throughput that others measured and published."""
