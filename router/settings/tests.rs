//! Settings: defaults as documented, and every way to get them wrong.
