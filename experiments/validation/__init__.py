"""Validation: simulate and replay the same schedules, and compare."""
