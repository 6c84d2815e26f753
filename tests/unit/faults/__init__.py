"""Faults on purpose: death, power cuts, full disks, bad reads and every order of several tabs."""
