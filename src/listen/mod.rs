//! The listener: accept, line layer, grammar, session; what is decided elsewhere is only carried out here.

pub mod intercept;

pub use intercept::{Delivery, Intercept, InterceptedEnvelope};
