"""Signers: whoever performs ops outside of this process, or outside of the shim."""
