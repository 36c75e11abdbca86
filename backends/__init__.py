"""Run on real engines: replay a simulated schedule, run a batch, measure hardware."""
