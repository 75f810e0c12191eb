"""Access to Redis or Valkey: the URL, the connections, and the scripts."""
