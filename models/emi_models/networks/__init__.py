"""The fusion networks, one published system a file; `emi_models.systems` knows them by name."""
