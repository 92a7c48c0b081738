//! What is known of a client.
