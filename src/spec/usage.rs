//! The small grammar of usage lines, and the argument trees that COMMAND DOCS prints from them.
