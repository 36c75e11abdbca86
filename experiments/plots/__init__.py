"""Figures, one file a kind, all from the columns of runs.csv or a timeline."""
