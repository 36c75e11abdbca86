"""The silicon cost model, and the measured operator tables that it reads."""
