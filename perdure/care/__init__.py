"""Care of a store: is it whole, what can be made again, brought up to date, or removed."""
