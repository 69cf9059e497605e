"""What benchmarks/speed.py measures."""
