"""What is measured of each stage beside its evaluation: each file is found, and needs no
registration."""
