"""The user's side: configs, sweeps, validation, plots, the command line."""
