"""The checks of the command ``check``. A part that isn't configured yields no finding."""
