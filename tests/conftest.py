"""For every test."""

import signal

# A shell that starts this in the background without job control makes its children ignore Ctrl-C, and theirs too. Tests
# that send it to a process mean a process that was started as a person would.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
