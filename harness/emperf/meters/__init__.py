"""The host's meters: what a job used, read from outside of it."""
