"""The experiments: each module has some in its ``EXPERIMENTS``, in the order of the report."""
