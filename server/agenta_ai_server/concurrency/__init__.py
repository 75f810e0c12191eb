"""Who may be in flight: a bounded number of places, and fair waiting for one."""
