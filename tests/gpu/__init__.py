"""What only a GPU can show.  `make gpu`; where there is none it skips, aloud."""
