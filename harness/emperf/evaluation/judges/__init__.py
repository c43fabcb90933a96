"""Judges: models that score a sampled answer. Three ways to ask one: a local model, an endpoint, a replay.

A judge is given prompts and gives a `Reply` to each. What a reply says, as a score or a class, is worked out by
`emperf.evaluation.judges.replies`, so that stored replies can be read again without the judge.
"""
