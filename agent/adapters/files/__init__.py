"""The local disk: durable writes, packages as folders and their store, the ring."""

from agent.adapters.files.contents import read_folder
from agent.adapters.files.ring import DiskRing
from agent.adapters.files.store import FileStore
from agent.adapters.files.vault import FileVault

__all__ = ["DiskRing", "FileStore", "FileVault", "read_folder"]
