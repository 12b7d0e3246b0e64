"""What is live under a name, and how that came about."""
