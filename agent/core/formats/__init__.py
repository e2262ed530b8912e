"""One file per payload format: bytes in, `Found` columns out.  `core.decoding` chooses."""
