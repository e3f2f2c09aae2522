"""The paper's four algorithms as a research repository usually has them: what ours is measured by.

Written from the formulas of Ding & Jin (2024) and Wang et al. (2023) with torch's own modules,
optimisers and automatic differentiation, one small operation after the other.
"""
