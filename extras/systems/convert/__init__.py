"""Weights of other nets and other systems under our names."""
