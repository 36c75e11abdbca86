"""Schedulers: who is admitted next. One file a scheduler, a registry by name."""
