"""What happens, in which order? Workloads, schedulers, KV cache and the event-driven engine."""
