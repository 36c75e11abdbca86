"""Do it for real: replay a simulated schedule on an engine, measure hardware."""
