"""vLLM: the offline engine, and its scheduler."""
