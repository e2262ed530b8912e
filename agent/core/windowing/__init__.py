"""The parts of a window: what comes late, when a span closes, and which readings it holds."""
