"""Temporal activities: where models are called, people's code runs, and the store is written."""
