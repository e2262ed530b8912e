"""The container images, built for real and run for real: `make images`.  Not in the suite."""
