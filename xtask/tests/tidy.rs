//! Holds the repository to its own rules.

#[test]
fn the_repository_is_tidy() {
    if let Err(told) = xtask::tidy::check() {
        panic!("{told}");
    }
}
