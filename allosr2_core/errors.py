"""The one exception type of the core."""


class AlloSR2Error(ValueError):
    """Bad input, checkpoint or configuration. The message says what was expected and what came."""

    __module__ = "allosr2_core.errors"  # a host imports packs under the names of their folders, and shows this
