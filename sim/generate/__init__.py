"""Datasets made anew: behaviour policies, recipes, and whole episodes from several processes."""
