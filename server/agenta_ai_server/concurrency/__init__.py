"""The concurrency limit: a fixed number of slots, and a fair queue for them; and turns at what only a few can use."""
