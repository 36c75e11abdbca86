"""docs/reproduction.md: the figures and tables of the paper, one module each or per family."""
