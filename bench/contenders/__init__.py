"""Who is measured: each module sets one library up as its own documentation does, around one clock.

A module has functions named after tasks, each from a `Job` to a dictionary of figures: `train` (files to updated
weights), `data` (files to batches on the device), `evaluate` (the library's own validation loop), `accuracy` (to a
target). All contenders see the same files, crops of the same strength, and the same threads; weights start at random
but for `accuracy`.
"""
