"""From texts to tensors and back, knowing nothing of gRPC.

`opening` turns settings into a model and what computes it; `bi_encoder` and `cross_encoder` are what a service holds
of it. Below them `tokenization` makes token sequences, `runner` admits and queues them, `dispatching` runs them in
batches (`batching` and `costs` decide what goes together) on the lanes of an engine of `engines`. `locating`,
`loading`, `weights` and `fingerprint` find, check and name a model, `model_cache` keeps what was made of it. Heavy
libraries are imported when they are needed, not before.
"""
