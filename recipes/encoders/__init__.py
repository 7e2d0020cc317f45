"""Compares encoders that are trained with the network with the same encoders frozen, on a made corpus.

    python -m recipes.encoders --out runs/encoders

eSpeak NG speaks the clips, and the faces are drawn; encoders are tiny and start from random weights. Ratings
follow from the media: three emotions from the words, two from how they are spoken, one from the drawn mouth.
The corpus contains no person, and its figures say nothing about people or about published weights.
"""
