"""Improving a policy online: replay, learner, gate and versions. Nothing here knows a simulator."""
