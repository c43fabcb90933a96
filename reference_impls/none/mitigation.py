"""The baseline: plain fine-tuning."""

from emperf.training import Mitigation


class Plain(Mitigation):
    """Every hook as it is."""
