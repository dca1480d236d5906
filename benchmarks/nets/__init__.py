"""The nets of the benchmarks, as NetSpec scripts with seeded weights: one file each."""
