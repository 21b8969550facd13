"""The two ways in which work ends early."""


class Problem(Exception):
    """Something went wrong; its text is one sentence for the user."""


class Cancelled(Exception):
    """The user cancelled."""
