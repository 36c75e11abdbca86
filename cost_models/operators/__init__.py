"""What the operators of a step cost: GEMMs, experts, attention, elementwise, collectives."""
