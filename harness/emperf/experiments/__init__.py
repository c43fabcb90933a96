"""Run, compare, tune and trace: each a plan and a summary over the same machinery."""
