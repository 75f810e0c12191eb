"""What the command ``check`` asks each part of the set-up. A part that isn't set up says nothing."""
