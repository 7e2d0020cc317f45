"""`emi bench systems`: trains all systems and TAEMI's variants on the same clips, and compares them."""
