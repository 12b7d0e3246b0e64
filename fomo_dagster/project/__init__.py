"""A person's own project: its files, and a first look at their images."""
