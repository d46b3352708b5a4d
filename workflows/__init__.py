"""Temporal workflow definitions: deterministic, data-driven, free of anyone's code but ours."""
