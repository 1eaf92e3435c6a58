"""Flask pages on top of the SDK."""
