"""Noise levels, preconditioning and samplers of consistency models."""
