"""Pure code and single rooms: no socket, no sleep; the whole folder runs in seconds."""
