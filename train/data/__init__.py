"""What the networks see: crops and their degradations."""
