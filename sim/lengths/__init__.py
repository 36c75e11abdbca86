"""What a scheduler knows about output lengths."""
