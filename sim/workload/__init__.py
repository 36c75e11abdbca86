"""Request pools: where they come from and the prefix tree that holds their prompts."""
