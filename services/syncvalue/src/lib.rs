//! SyncValue: what is this customer worth?
