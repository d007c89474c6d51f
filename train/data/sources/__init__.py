"""Photographs out of packages."""
