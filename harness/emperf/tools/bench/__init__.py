"""`make bench`: EMPerf's trainer, sampling and harness beside what else would do the same work, as ratios.

All of it is measured in one run on one machine. Every contender has a process of its own and they take turns, so that
what else the machine does falls on all of them alike; a rate is the median over a contender's turns.
"""
