"""From cells' scores to a result. Every number is an estimate, with its n and its interval."""
