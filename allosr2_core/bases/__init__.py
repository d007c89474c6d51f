"""The model families an adapter can be for, and adapters from elsewhere."""
