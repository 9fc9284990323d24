"""For tests of your own: an OpenSSL provider whose every operation pauses, fails or waits as a script says."""

from tlsserver.testing.scripted import AT_ONCE, HELD, SIGNALLED, Change, Counts, Kind, Script, ScriptedProvider, Waiting

__all__ = ["AT_ONCE", "HELD", "SIGNALLED", "Change", "Counts", "Kind", "Script", "ScriptedProvider", "Waiting"]
