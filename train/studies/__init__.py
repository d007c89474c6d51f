"""Measurements and pictures of the method."""
