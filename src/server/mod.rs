//! The outside: workers, listeners, connections, timers.
