"""The one error that is written for people."""


class UserError(ValueError):
    """Something in the input cannot work. The message is one sentence: what was set, why not, what to set.

    The command line prints it without a traceback and exits with code 2.
    """
