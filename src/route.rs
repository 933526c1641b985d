//! Which way each forward path goes (being built).
