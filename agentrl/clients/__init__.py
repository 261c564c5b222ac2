"""HTTP in one place: addresses, connections, retries, deadlines, and the errors of it all.

    endpoints: which address -> client: one exchange -> border: its errors -> retry: once more?

Engines, sandboxes and whatever else asks a server build on this; no other folder imports httpx.
"""
