"""Fits: measured operators, co-runs and all-reduces in, curves and hardware files out."""
