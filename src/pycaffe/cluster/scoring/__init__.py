"""Nets over many items on Ray: the pool's backend, and Ray Data."""
