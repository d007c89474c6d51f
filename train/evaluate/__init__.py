"""Figures against the peers."""
