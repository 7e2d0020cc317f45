"""How good are the words, and how late? The speech stage on clips whose words, and their times, are known.

::

    clips ─ pace ─ drive ─ history ─┬─ score      word error rate, streaming and in one piece
    (sound, words, times)           ├─ lateness   of words: shown, and certain
                                    ├─ erasure    words taken back
                                    └─ lag        of packets, and whether it grows

`run` joins them; `page` and `emi_bench.report.speech` show what it found.
"""
