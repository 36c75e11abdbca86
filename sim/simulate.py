"""The front door of the simulator: one workload, one scheduler, one engine -> one result."""
