"""Figures, one file per kind. `sweep_figures.py` chooses those of a sweep."""
