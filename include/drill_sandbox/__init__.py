"""The sandbox of a drill: a state, a workplace and channels that reach nothing live."""
