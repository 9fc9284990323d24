"""Handlers for `tlsserver serve`: the files of a directory (`files`) and the demo site (`demo`)."""
