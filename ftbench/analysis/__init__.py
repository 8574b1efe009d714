"""What is left in representations: pure functions on features."""
