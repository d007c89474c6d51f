"""Checkpoints made and taken apart."""
