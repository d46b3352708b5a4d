"""The experiments. Each module has some in its ``EXPERIMENTS``."""

# In the order of the report.
MODULES = ("steps", "sizes", "peers", "varieties", "travel", "waiting", "scale", "commands")
