"""What is trained, in the order the stages build on each other."""
