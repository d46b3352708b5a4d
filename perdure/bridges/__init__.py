"""Bridges from other agent frameworks to our store."""
