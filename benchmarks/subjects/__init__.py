"""What is measured, one a module. Each does the same work (``benchmarks.workload``) in its own way."""
