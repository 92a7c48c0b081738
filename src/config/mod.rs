//! The configuration: one table of directives, and what reads and writes it.
