"""A project of a person's own: its files, and a first look at the images it is about."""
