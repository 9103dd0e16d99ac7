//! A declarative, one-shot reconciler for sandboxes.
