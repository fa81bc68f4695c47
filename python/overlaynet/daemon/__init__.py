"""The process on every host: one asyncio loop that carries out what the reconciler decides."""
