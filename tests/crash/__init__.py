"""Workers that die, or stand still, at a point the test names: real processes, real signals.

- ``points``: what a point is, and the seams a worker process watches for it
- ``standing``: calls that stand still side by side, so that one signal strikes them all
- ``worker``: the worker process
- ``process``: that process as a test sees it
- ``scene``: one thread's own shop, model, store and task queue, and what is true of them at the end
- ``stories``: what the model says; ``wires``: an app with a tool that can't be undone
"""
