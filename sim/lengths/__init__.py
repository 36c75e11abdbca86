"""What a scheduler knows of output lengths."""
