//! Developer commands of the Hearth workspace.
fn main() {}
