"""The replay service: rows of the actors in, batches of the learner out. Needs no torch."""
