//! From one format to the other.
