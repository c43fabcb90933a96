"""Beside the experiments: doctor, scaffold, listing, check, bench, validity."""
