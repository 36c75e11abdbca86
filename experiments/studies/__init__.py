"""Studies: many simulations that together answer one question, written up beside a reference."""
