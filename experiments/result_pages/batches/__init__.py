"""docs/batches.md: what an order is worth on twelve kinds of everyday batch files."""
