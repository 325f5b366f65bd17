"""What a machine needs to run Shoal, what this one lacks, and how to get it."""
