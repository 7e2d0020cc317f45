"""How far live voice features are from a whole pass, by hop and context, and what that does to estimates."""
