"""`ratio`: hold the ratio of compute to memory in every step."""
