"""What Winnow's services share to serve and to call.

`faults` is the one tree of exceptions, free of gRPC; `status` turns it into gRPC statuses and back; `serving` runs a
service (health, reflection, draining); `calling` opens channels; `telemetry` writes logs that share a request id across
hops; `settings` reads flags and environment.
"""
