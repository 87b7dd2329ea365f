"""How good a model is: loss on held-out rows, greedy answers, and whether they match the references.

Importing this package imports no torch; `scoring`, `generate` and `model` do.
"""
