"""Real processes that save, and are killed, stopped, cut off and raced, while others prove it."""
