"""Weights on top of a base's: LoRA, differences, the layers they are for."""
