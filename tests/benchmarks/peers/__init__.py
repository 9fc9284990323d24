"""Other TLS servers beside ours: what a handshake, an open connection and a storm cost each of them."""
