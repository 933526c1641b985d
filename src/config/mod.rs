//! Configuration: TOML text to a configuration as meant.

pub mod relay;
