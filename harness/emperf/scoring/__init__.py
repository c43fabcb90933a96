"""Cells' scores to a result: every number an estimate with its n and its interval."""
