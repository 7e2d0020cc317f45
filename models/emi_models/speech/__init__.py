"""Speech recognition: where utterances begin and end, and their words, behind one small protocol."""
