"""The processes of a live fine-tuning: starting, keeping and watching them, and what came of it."""
