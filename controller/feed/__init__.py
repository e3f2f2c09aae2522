"""Experience on its way from a running loop to whoever learns from it. Needs no torch."""
