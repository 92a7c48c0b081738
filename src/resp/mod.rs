//! The wire format: requests in, replies out, RESP2 and RESP3, bytes only.
