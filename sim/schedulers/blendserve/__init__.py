"""BlendServe (ASPLOS '26): the resource-aware prefix tree and the dual scan."""
