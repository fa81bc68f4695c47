//! The TUN device, UDP sockets and the pump that carries packets between them (Linux).
