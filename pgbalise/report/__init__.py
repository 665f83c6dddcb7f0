"""What a trace found, for people and for programs."""
