"""Nets around a net: they change its pictures or add losses, and keep the names of its tensors."""
