//! The command kiki: up, replay, bench, audit, invoice.
