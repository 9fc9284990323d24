"""TLS for asyncio: handshakes that never block the loop."""
