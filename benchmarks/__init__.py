"""Side-by-side figures against peers: `python -m benchmarks NAME`. Not part of the tests; ratios count, not seconds."""
