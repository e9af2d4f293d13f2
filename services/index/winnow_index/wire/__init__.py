"""Conversions between Qdrant's messages and the engine's values. The only modules, with the servicers, that know pb2.

Everything is validated here, before the engine: an operation that the engine rejects stays in its write-ahead log and
comes back, in part, when the shard is opened again.
"""
