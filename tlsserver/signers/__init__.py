"""Signers: keys that never enter the process. One module for each kind; nothing is imported before it is wanted."""
