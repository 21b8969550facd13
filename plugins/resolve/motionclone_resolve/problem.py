"""The two ways in which work ends early."""


class Problem(Exception):
    """An error, in one sentence for the user."""


class Cancelled(Exception):
    """The user cancelled."""
