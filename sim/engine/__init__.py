"""One replica: the scheduler loop, its running requests and its KV cache."""
