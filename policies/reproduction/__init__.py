"""Many runs from one plan, the rows they leave, and the tables beside the published numbers."""
