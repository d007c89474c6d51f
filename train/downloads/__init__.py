"""Packages from the indexes, verified by sha256."""
