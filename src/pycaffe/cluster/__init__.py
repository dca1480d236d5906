"""Training and scoring on many machines, on Ray."""
