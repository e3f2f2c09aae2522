"""Simulated plants behind the control contract, their tasks, data and reference scores."""
