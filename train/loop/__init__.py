"""The training loop and all that makes a run go on where it stopped."""
