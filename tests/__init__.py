"""Tests of the whole house; tests/README.md says which floor is which."""
