"""The control side: contract, wire, loop, safety, log and timing. Needs no simulator, no torch."""
