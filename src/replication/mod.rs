//! Replication, pure: what to send, what to apply, when to speak next. No sockets, files or clocks.
