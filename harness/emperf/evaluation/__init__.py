"""Reading a model, on the host's side only: the language model, how it is sampled, and the protocols that read it."""
