//! SyncShield: may we spend this, and what was done, provably?
