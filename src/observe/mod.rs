//! What is measured and told: logs, statistics, slow log, latency, INFO.
