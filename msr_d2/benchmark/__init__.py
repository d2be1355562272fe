"""Cost of each system against its baseline, side by side in one run."""
