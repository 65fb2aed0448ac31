//! The domain services of banger.
