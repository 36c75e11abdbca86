"""Calibration: measure this machine, or fit a cost model to replays."""
