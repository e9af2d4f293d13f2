"""What Winnow's services share to serve and to call.

`faults` is the one tree of exceptions, free of gRPC; `status` turns it into gRPC statuses and back; `serving` runs a
service (health, reflection, draining) within the `limits` of its connections; `requesting` refuses who may not call and
what is no request, both by `wrapping` handlers; `calling` opens channels, `own_service` one
to a service from beside it; `tls` and `api_keys` are what either side shows, `reloading` reads it
anew; `telemetry` writes logs that share a request id across hops; `settings` reads flags and environment.
"""
