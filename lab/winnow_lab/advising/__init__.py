"""`winnow advise`: which way of searching suits a set's judgements, a budget and this machine.

`timing` measures what searches take, `recommending` decides from that and from what `winnow_lab.evaluating` measured,
`costing` asks `winnow plan`'s calculator, `drawing` and `reporting` tell it. `recommending` is pure.
"""
