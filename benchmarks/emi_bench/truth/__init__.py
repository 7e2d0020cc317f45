"""`emi bench truth`: how well a checkpoint agrees with people's ratings of faces, voices and words.

`ratings` reads the ratings, `folders` makes such a file of data sets with a layout of their own, `features`
runs the encoders, `scores` has the statistics, `measure` puts them together and `truth_report` shows them.
"""
