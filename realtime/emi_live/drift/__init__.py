"""Does live hearing differ from hearing all at once? A background check of features against a full pass."""
