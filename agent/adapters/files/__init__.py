"""The local disk: durable writes, packages as folders, and the content-addressed store of them."""

from agent.adapters.files.contents import read_folder
from agent.adapters.files.store import FileStore
from agent.adapters.files.vault import FileVault

__all__ = ["FileStore", "FileVault", "read_folder"]
