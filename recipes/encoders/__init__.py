"""Do encoders that are trained with the network beat the same encoders frozen? A corpus with a known answer.

    python -m recipes.encoders --out runs/encoders

Clips are spoken by eSpeak NG and shown by drawn faces; encoders are tiny and start from random weights. What
is rated lies in the media: three emotions in the words that are said, two in how they are said, one in the
drawn mouth. The corpus holds no person, and its figures say nothing about people or about published weights.
"""
