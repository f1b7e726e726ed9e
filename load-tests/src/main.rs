//! Runs Portico and its peers side by side and prints what each costs.
fn main() {}
