"""GPUs: peaks, efficiency curves, number formats, and how much KV cache their memory holds."""
