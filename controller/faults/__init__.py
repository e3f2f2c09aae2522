"""Faults injected into a running system, and what they cost: behind ``onebeat faults``."""
