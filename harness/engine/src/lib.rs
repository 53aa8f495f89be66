//! cutpoint engine
