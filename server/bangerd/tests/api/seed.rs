//! Seeds of tests that do what chance says: printed, so that a run can be repeated.

/// A number that the environment gives, or another.
pub(crate) fn setting(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The seed of a test: `BANGER_SEED`, or a new one.
pub(crate) fn seed(test: &str) -> u64 {
    let seed = setting("BANGER_SEED", fastrand::u64(..));
    println!("{test}: BANGER_SEED={seed}");
    seed
}
