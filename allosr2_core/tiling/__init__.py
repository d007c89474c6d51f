"""Large pictures in pieces: blended, exact, in strips."""
