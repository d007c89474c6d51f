"""Networks to train: built, or on a base."""
