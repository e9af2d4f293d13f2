"""`winnow promote`: a candidate model beside the one that serves, on fixed sets, before it takes its place.

`comparing` measures both on the same queries, `deciding` says whether the candidate may serve, `switching` puts it
where the service looks.
"""
