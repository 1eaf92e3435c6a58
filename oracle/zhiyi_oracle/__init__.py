"""Services that hold both chain and marks."""
