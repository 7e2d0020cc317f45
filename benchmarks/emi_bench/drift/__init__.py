"""`emi bench drift`: how far the live voice's features are from those of one pass over the whole clip."""
