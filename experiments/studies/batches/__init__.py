"""Twelve generated batch files: the everyday work on which orders are compared."""
