"""`emi bench speech`: how good the words are, and how late, on clips whose words and times are known.

::

    clips ─ playback ─ scoring ─┬─ word error rate, streaming and in one piece
    (sound, words, times)       ├─ lateness of words: first shown, and committed
                                ├─ erasure: words taken back
                                └─ lag of packets, and whether it grows

`run` joins them; `report` is the result.
"""
