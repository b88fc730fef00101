"""What benchmarks share: processes, timing, records, networks."""
