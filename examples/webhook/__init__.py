"""Hearing of what people should know: a receiver of webhooks."""
