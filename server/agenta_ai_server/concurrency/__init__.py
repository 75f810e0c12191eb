"""The concurrency limit: a fixed number of slots, and a fair queue for them; and turns at what there is only once."""
