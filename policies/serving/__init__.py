"""A server that answers many robots with several policies, and changes them between requests."""
