"""docs/published.md: predictions beside throughput that others measured and published."""
