"""Language models: their shapes and precision, and how to load a spec."""
