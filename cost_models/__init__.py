"""How long does a step take? Hardware, models and cost models; knows nothing of schedulers."""
