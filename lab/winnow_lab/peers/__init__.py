"""What runs other engines for comparison: scripts for their own interpreters, which have none of Winnow's packages."""
