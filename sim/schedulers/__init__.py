"""Schedulers: who is admitted next. One file per scheduler, a registry by name."""
