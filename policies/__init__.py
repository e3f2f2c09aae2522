"""Policies: learning them, keeping them in bundles, and serving them."""
