"""The checkpoint file: its format, its configuration, what is in it."""
