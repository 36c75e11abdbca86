"""The silicon cost model, the measured operator tables that it reads, and their curves."""
