"""What it costs to run Winnow observed, secured, or any other way: a stack of each beside the plain one."""
