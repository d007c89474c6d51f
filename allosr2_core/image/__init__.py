"""Pictures: files, sizes, colours."""
