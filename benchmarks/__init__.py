"""Perdure beside its peers, on the same work in one run: ``python3 dev.py run bench``."""
