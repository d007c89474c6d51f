"""A package, so that server and browser end with its last test: the scope of its fixtures."""
