"""The concurrency limit: a fixed number of slots, and a fair queue for them."""
