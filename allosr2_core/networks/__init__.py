"""The networks: what a checkpoint can be made of."""
