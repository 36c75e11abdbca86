"""docs/evidence.md: how near `ratio` comes to the optimum, and what each part contributes."""
