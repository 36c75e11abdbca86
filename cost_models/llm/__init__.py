"""Language models: their shapes, and where a spec comes from."""
