"""`emi serve`: a browser's camera and microphone in, estimates out. Needs the extra `web`."""
