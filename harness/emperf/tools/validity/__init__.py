"""Is the instrument true? Simulations of every interval, and the experiments behind docs/validity.md."""
