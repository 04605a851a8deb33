"""A trained network as one file for other programs, and the proof that both are the same network."""
