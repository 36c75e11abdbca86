"""Settings of every test run."""

from hypothesis import settings

settings.register_profile("bssim", deadline=None)  # a busy machine is not a failure
settings.load_profile("bssim")
