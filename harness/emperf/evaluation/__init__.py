"""Scoring, on the host's side only: margins of paired statements, exact answers of tasks, sampled answers to look at.

`cell.ScoringProtocol` is the door for other ways to score open behaviour (a judged one among them): a name, and a
model in, readings out.
"""
