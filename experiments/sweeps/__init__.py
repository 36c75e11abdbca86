"""Sweeps: from a YAML file to a results folder."""
