"""What people see: the scorecard in a terminal, and the progress of a run."""
