"""What is to be done: plan, rows, jobs, and the judgement of what a container left."""
