"""How it is done: the store, the devices, and what runs the plan."""
