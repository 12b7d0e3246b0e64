"""What follows an experiment's evaluations: each file is found, and needs no registration."""
