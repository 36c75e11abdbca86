"""Fit curves and hardware files to measured operators, co-runs and all-reduces."""
