//! A driver without processes, for tests of the layers above.
