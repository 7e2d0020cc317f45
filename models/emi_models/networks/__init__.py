"""The fusion networks, one published system a file; `emi_models.systems` knows them by name.

`base` is what they have in common, `parts` and `temporal` what they are built from.
"""
