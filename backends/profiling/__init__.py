"""Micro-benchmarks that `bssim calibrate` runs."""
